"""Asks the GPU server whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle.errors import AuthenticationError, ConfigurationError, DeadlineError, UnavailableError
from gorggle_lambdas.common.errors import AwsUnavailableError, FleetTimeoutError
from gorggle_lambdas.common.inference_client import connect_to_server
from gorggle_lambdas.common.observability import count, logger, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import has_expired

RAISES = (FleetTimeoutError, AuthenticationError, ConfigurationError, AwsUnavailableError)

# One look; the state machine asks again.
READY_TIMEOUT_S = 8.0


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    server_address: str
    server_name: str
    server_client_secret: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Give what ``scale_up_fleet`` gave, with ``is_ready`` as it is now."""
    chosen, waiting = load_settings(Settings), event["fleet"]
    client = connect_to_server(chosen.server_address, chosen.server_name, chosen.server_client_secret)
    try:
        with client:
            info = client.wait_until_ready(READY_TIMEOUT_S)
    except (UnavailableError, DeadlineError) as error:
        count("FleetNotReadyChecks")
        if has_expired(waiting["deadline"]):
            raise FleetTimeoutError(f"no GPU server was ready in the time it was given: {error}") from error
        return {**waiting, "is_ready": False}
    logger.info("the server is ready", version=info.version, streams=info.capacity.active_streams)
    return {**waiting, "is_ready": True}
