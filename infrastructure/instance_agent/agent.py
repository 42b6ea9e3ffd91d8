"""Speaks for the server to AWS: that it is ready, how busy it is, what it logs, and that it may go.

One step every few seconds. A step that fails is logged and tried again at the next: the server does not need the
attendant to serve.
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infrastructure.instance_agent import certificates, metrics
from infrastructure.instance_agent.environment import AgentConfig, InstanceMetadataClient, http_get
from infrastructure.instance_agent.log_shipper import LogShipper

STEP_INTERVAL_S = 5.0
METRICS_INTERVAL_S = 60.0
CERTIFICATES_INTERVAL_S = 3600.0
STOP_SERVER_COMMAND = ("systemctl", "stop", "gorggle.service")
# What AWS answers when an instance waits for nobody: it was reported already, or is in no such phase.
NO_ACTION = "No active Lifecycle Action found"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clients:
    """Clients of the services that the attendant calls."""

    autoscaling: Any
    cloudwatch: Any
    logs: Any
    secretsmanager: Any


class InstanceAgent:
    """What it has done so far, and when the next of each thing is due."""

    def __init__(
        self, config: AgentConfig, clients: Clients, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._clients, self._clock = config, clients, clock
        self._imds = InstanceMetadataClient(config.imds_url)
        self.instance_id = self._imds.instance_id
        self._log_shipper = LogShipper(
            clients.logs, config.log_group, self.instance_id, config.journal_cursor_file
        )
        self._cpu, self._request_counters = metrics.CpuUsage(), metrics.RequestCounters()
        self._metrics_published_at = self._certificates_refreshed_at = float("-inf")
        self.is_ready = False
        self.is_done = False
        self._stop_process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Attend until the instance may go."""
        while not self.is_done:
            self.step()
            time.sleep(STEP_INTERVAL_S)

    def step(self) -> None:
        """Do what is due."""
        for work in (
            self._report_readiness,
            self._publish_metrics,
            self._refresh_certificates,
            self._drain,
            self._ship_logs,
        ):
            try:
                work()
            except (ClientError, BotoCoreError, OSError, LookupError, subprocess.SubprocessError) as error:
                _log.error("%s failed and is tried again: %s", work.__name__.strip("_"), error)

    def _report_readiness(self) -> None:
        if not self.is_ready and http_get(f"{self._config.metrics_url}/readyz") is not None:
            self._complete_lifecycle_action(self._config.launch_hook)
            self.is_ready = True
            _log.info("the server is ready")

    def _publish_metrics(self) -> None:
        if self._clock() - self._metrics_published_at < METRICS_INTERVAL_S:
            return
        page = http_get(f"{self._config.metrics_url}/metrics")
        data = metrics.build_metric_data(page, self._cpu, self._config.fleet, self._request_counters)
        self._clients.cloudwatch.put_metric_data(Namespace=self._config.metrics_namespace, MetricData=data)
        self._metrics_published_at = self._clock()

    def _refresh_certificates(self) -> None:
        if self._clock() - self._certificates_refreshed_at < CERTIFICATES_INTERVAL_S:
            return
        folder, secret = self._config.certificate_folder, self._config.certificate_secret
        if certificates.refresh(self._clients.secretsmanager, secret, folder):
            _log.info("the certificates are renewed")
        self._certificates_refreshed_at = self._clock()

    def _drain(self) -> None:
        """Let the server end its streams, then let the fleet end the instance."""
        if self.is_done:
            return
        if self._stop_process is None:
            if not self._imds.is_terminating:
                return
            _log.info("the instance ends: the server takes no new streams")
            self._stop_process = subprocess.Popen(STOP_SERVER_COMMAND)
        if self._stop_process.poll() is not None:
            self._complete_lifecycle_action(self._config.terminate_hook)
            _log.info("the server has stopped")
            # A spot instance is told before the fleet knows: there it waits for nobody, and ends by itself.
            self.is_done = True

    def _ship_logs(self) -> None:
        self._log_shipper.ship()

    def _complete_lifecycle_action(self, hook: str) -> None:
        try:
            self._clients.autoscaling.complete_lifecycle_action(
                LifecycleHookName=hook,
                AutoScalingGroupName=self._config.fleet,
                InstanceId=self.instance_id,
                LifecycleActionResult="CONTINUE",
            )
        except ClientError as error:
            if NO_ACTION not in str(error):
                raise


class JsonFormatter(logging.Formatter):
    """The same form as the server's log."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        return json.dumps({"level": record.levelname, "logger": record.name, "message": record.getMessage()})
