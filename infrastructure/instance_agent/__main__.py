"""``python -m infrastructure.instance_agent certificates | run``."""

from __future__ import annotations

import logging
import sys

import boto3

from infrastructure.instance_agent import certificates
from infrastructure.instance_agent.agent import Clients, InstanceAgent, JsonFormatter
from infrastructure.instance_agent.environment import AgentConfig

_USAGE = "usage: python -m infrastructure.instance_agent certificates | run"


def main(args: list[str]) -> int:
    """Run a command and return the exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level="INFO", handlers=[handler])
    config = AgentConfig.from_environment()
    match args:
        case ["certificates"]:
            client = boto3.client("secretsmanager")
            certificates.wait_for_certificates(client, config.certificate_secret, config.certificate_folder)
        case ["run"]:
            clients = Clients(
                *(boto3.client(each) for each in ("autoscaling", "cloudwatch", "logs", "secretsmanager"))
            )
            InstanceAgent(config, clients).run()
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
