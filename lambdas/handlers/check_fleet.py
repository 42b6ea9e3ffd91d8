"""Checks whether the GPU server is ready."""

from __future__ import annotations

from typing import Any

from gorggle.errors import AuthenticationError, ConfigurationError, DeadlineError, UnavailableError
from gorggle_lambdas.common.errors import AwsUnavailableError, FleetTimeoutError
from gorggle_lambdas.common.inference_client import ServerSettings as Settings
from gorggle_lambdas.common.inference_client import connect_to_server
from gorggle_lambdas.common.observability import count, logger, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import has_expired

RAISES = (FleetTimeoutError, AuthenticationError, ConfigurationError, AwsUnavailableError)

# Timeout of one check; the state machine repeats it.
READY_TIMEOUT_S = 8.0


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Return the output of ``scale_up_fleet`` with ``is_ready`` updated."""
    fleet = event["fleet"]
    try:
        with connect_to_server(load_settings(Settings)) as client:
            info = client.wait_until_ready(READY_TIMEOUT_S)
    except (UnavailableError, DeadlineError) as error:
        count("FleetNotReadyChecks")
        if has_expired(fleet["deadline"]):
            raise FleetTimeoutError(f"no GPU server became ready before the timeout: {error}") from error
        return {**fleet, "is_ready": False}
    logger.info("the server is ready", version=info.version, streams=info.capacity.active_streams)
    return {**fleet, "is_ready": True}
