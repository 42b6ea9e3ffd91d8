"""The agent's configuration, and the instance metadata service."""

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
    """Environment variables; their names are the fields' in upper case."""

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
        """Read the configuration.

        Raises:
            KeyError: a variable is not set.
        """
        values = os.environ if environment is None else environment
        texts = {field.name: values[field.name.upper()] for field in dataclasses.fields(cls)}
        paths = {name: Path(texts.pop(name)) for name in ("certificate_folder", "journal_cursor_file")}
        return cls(**texts, **paths)  # type: ignore[arg-type]


def http_get(address: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> str | None:
    """Return the response body; None if the request fails."""
    request = urllib.request.Request(address, headers=dict(headers or {}), method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - http on this machine
            content: bytes = response.read()
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
        """Return a metadata item; None if it does not exist."""
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
        token = http_get(f"{self._address}/latest/api/token", ttl, "PUT")
        if token is None:
            return None
        return http_get(f"{self._address}/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})

    @property
    def instance_id(self) -> str:
        """This instance's id.

        Raises:
            RuntimeError: the service does not respond.
        """
        result = self.get("instance-id")
        if result is None:
            raise RuntimeError(f"the metadata service at {self._address} returned no instance id")
        return result

    @property
    def is_terminating(self) -> bool:
        """Whether the Auto Scaling group terminates this instance, or EC2 reclaims it (spot)."""
        if self.get("autoscaling/target-lifecycle-state") == "Terminated":
            return True
        # The notice comes two minutes before.
        return self.get("spot/instance-action") is not None
