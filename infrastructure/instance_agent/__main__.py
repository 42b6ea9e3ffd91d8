"""``python -m infrastructure.instance_agent certificates | attend``."""

from __future__ import annotations

import logging
import sys

import boto3

from infrastructure.instance_agent import certificates
from infrastructure.instance_agent.agent import Clients, InstanceAgent, JsonFormatter
from infrastructure.instance_agent.environment import AgentConfig

_USAGE = "usage: python -m infrastructure.instance_agent certificates | attend"


def main(arguments: list[str]) -> int:
    """Run one command; the result is the exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level="INFO", handlers=[handler])
    around = AgentConfig.from_environment()
    match arguments:
        case ["certificates"]:
            client = boto3.client("secretsmanager")
            certificates.wait_for_certificates(client, around.certificate_secret, around.certificate_folder)
        case ["attend"]:
            clients = Clients(
                *(boto3.client(each) for each in ("autoscaling", "cloudwatch", "logs", "secretsmanager"))
            )
            InstanceAgent(around, clients).run()
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
