"""What the attendant is told, and the instance's own metadata."""

from __future__ import annotations

import dataclasses
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 2.0
TOKEN_TTL_S = 300


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """The environment, each field a variable of that name in capitals."""

    fleet: str
    launch_hook: str
    terminate_hook: str
    certificate_secret: str
    certificate_folder: Path
    metrics_namespace: str
    log_group: str
    metrics_url: str
    imds_url: str
    journal_cursor_file: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> AgentConfig:
        """Read it.

        Raises:
            KeyError: a variable is not set.
        """
        found = os.environ if environment is None else environment
        texts = {field.name: found[field.name.upper()] for field in dataclasses.fields(cls)}
        paths = {name: Path(texts.pop(name)) for name in ("certificate_folder", "cursor")}
        return cls(**texts, **paths)  # type: ignore[arg-type]


def http_get(address: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> str | None:
    """What an address answers; None where it answers that there is nothing, or does not answer."""
    request = urllib.request.Request(address, headers=dict(headers or {}), method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http on this machine
            content: bytes = answer.read()
    except (urllib.error.URLError, OSError):
        return None
    return content.decode(errors="replace")


class InstanceMetadataClient:
    """The instance metadata service, version 2.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str) -> str | None:
        """An item; None where there is none."""
        life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
        token = http_get(f"{self._address}/latest/api/token", life, "PUT")
        if token is None:
            return None
        return http_get(f"{self._address}/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})

    @property
    def instance_id(self) -> str:
        """This instance's id.

        Raises:
            RuntimeError: the service does not answer.
        """
        found = self.get("instance-id")
        if found is None:
            raise RuntimeError(f"the metadata service at {self._address} does not say which instance this is")
        return found

    @property
    def is_terminating(self) -> bool:
        """Whether the fleet has decided that this instance goes, or EC2 takes it back (spot)."""
        return self.get("autoscaling/target-lifecycle-state") == "Terminated" or self.is_reclaimed

    @property
    def is_reclaimed(self) -> bool:
        """Whether a spot instance is taken back: in two minutes it is gone."""
        return self.get("spot/instance-action") is not None
