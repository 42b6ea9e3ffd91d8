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
MEASURE_S = 60.0
CERTIFICATES_S = 3600.0
STOP_SERVER = ("systemctl", "stop", "gorggle.service")
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
        self, around: AgentConfig, clients: Clients, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._around, self._clients, self._clock = around, clients, clock
        self._metadata = InstanceMetadataClient(around.metadata)
        self.instance = self._metadata.instance
        self._journal = LogShipper(clients.logs, around.log_group, self.instance, around.cursor)
        self._processor, self._calls = metrics.CpuUsage(), metrics.RequestCounters()
        self._measured = self._renewed = float("-inf")
        self.is_ready = False
        self.is_done = False
        self._stopping: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Attend until the instance may go."""
        while not self.is_done:
            self.step()
            time.sleep(STEP_INTERVAL_S)

    def step(self) -> None:
        """Do what is due."""
        for work in (self._report_readiness, self._measure, self._renew, self._drain, self._carry_logs):
            try:
                work()
            except (ClientError, BotoCoreError, OSError, LookupError, subprocess.SubprocessError) as error:
                _log.error("%s failed and is tried again: %s", work.__name__.strip("_"), error)

    def _report_readiness(self) -> None:
        if not self.is_ready and http_get(f"{self._around.operations}/readyz") is not None:
            self._complete(self._around.launch_hook)
            self.is_ready = True
            _log.info("the server is ready")

    def _measure(self) -> None:
        if self._clock() - self._measured < MEASURE_S:
            return
        page = http_get(f"{self._around.operations}/metrics")
        data = metrics.data(page, self._processor, self._around.fleet, self._calls)
        self._clients.cloudwatch.put_metric_data(Namespace=self._around.metrics_namespace, MetricData=data)
        self._measured = self._clock()

    def _renew(self) -> None:
        if self._clock() - self._renewed < CERTIFICATES_S:
            return
        folder, secret = self._around.certificate_folder, self._around.certificate_secret
        if certificates.refresh(self._clients.secretsmanager, secret, folder):
            _log.info("the certificates are renewed")
        self._renewed = self._clock()

    def _drain(self) -> None:
        """Let the server end its streams, then let the fleet end the instance."""
        if self.is_done:
            return
        if self._stopping is None:
            if not self._metadata.is_ending:
                return
            _log.info("the instance ends: the server takes no new streams")
            self._stopping = subprocess.Popen(STOP_SERVER)
        if self._stopping.poll() is not None:
            self._complete(self._around.terminate_hook)
            _log.info("the server has stopped")
            # A spot instance is told before the fleet knows: there it waits for nobody, and ends by itself.
            self.is_done = True

    def _carry_logs(self) -> None:
        self._journal.ship()

    def _complete(self, hook: str) -> None:
        try:
            self._clients.autoscaling.complete_lifecycle_action(
                LifecycleHookName=hook,
                AutoScalingGroupName=self._around.fleet,
                InstanceId=self.instance,
                LifecycleActionResult="CONTINUE",
            )
        except ClientError as error:
            if NO_ACTION not in str(error):
                raise


class JsonLines(logging.Formatter):
    """The same form as the server's log."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        return json.dumps({"level": record.levelname, "logger": record.name, "message": record.getMessage()})
