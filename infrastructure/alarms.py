"""CloudWatch alarms; each description says what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.gpu_fleet import GpuFleet
from infrastructure.http_api import Api
from infrastructure.lambda_function import LambdaFunction
from infrastructure.messaging import Queue, Topic
from infrastructure.pipeline import Pipeline

DEFAULT_PERIOD_S = 300
# A starting fleet has no server at first. After this time it is late; jobs fail after fleetStartTimeoutS. Not every minute
# contains a check of the fleet.
FLEET_NOT_READY_MINUTES, MIN_BREACHING_SHARE = 12, 0.8
# States retry transient errors, so that a single one raises no alarm.
RETRIED_ERROR_THRESHOLD, ERROR_THRESHOLD = 5, 1
API_LATENCY_MS, API_5XX_THRESHOLD = 5000, 3
MAX_UPLOAD_AGE_S = 3600
# High load is normal for a GPU but not for CPU and memory.
GPU_PERCENT, GPU_MINUTES = 90.0, 15
HOST_PERCENT, HOST_MINUTES = 80.0, 10
GPU_MEMORY_PERCENT, DISK_PERCENT = 95.0, 85.0
# Dimension that Powertools adds to the functions' metrics (POWERTOOLS_SERVICE_NAME).
FUNCTION_DIMENSIONS = {"service": "gorggle"}
# Metrics from the server's log: filter pattern, and description of the alarm.
LOG_FILTERS = {
    "ServerErrors": ('{ $.level = "ERROR" }', "the server logged errors"),
    "OutOfMemory": (
        '"out of memory"',
        "a GPU ran out of memory: lower gpuMaxStreams or use a larger instance type",
    ),
}


class Monitoring(Component):
    """All alarms of the stack. They notify the topic ``alerts`` and the addresses of ``alertEmails``."""

    def __init__(self, name: str, context: StackContext, alerts: Topic) -> None:
        super().__init__("monitoring:Monitoring", name, context)
        self._alerts = alerts
        self.alarms: list[aws.cloudwatch.MetricAlarm] = []
        for index, address in enumerate(self._settings.alert_emails):
            alerts.subscribe(f"email-{index}", "email", address)

    def add_function_alarms(self, functions: Mapping[str, LambdaFunction]) -> None:
        """Add alarms for errors of each function and for throttling in the account."""
        for role, function in functions.items():
            retried = function.spec.trigger["kind"] == "state_machine"
            self._add_alarm(
                f"errors-{role}",
                f"errors in {role}: see its log group",
                ("AWS/Lambda", "Errors", {"FunctionName": function.name}, "Sum"),
                threshold=RETRIED_ERROR_THRESHOLD if retried else ERROR_THRESHOLD,
            )
        self._add_alarm(
            "throttles",
            "Lambda throttles invocations: request a higher concurrency quota or lower maxConcurrentWindows",
            # Without a function name: all functions of the account and region share the concurrency.
            ("AWS/Lambda", "Throttles", {}, "Sum"),
        )

    def add_pipeline_alarms(
        self, pipeline: Pipeline, dead_letter_queues: Mapping[str, Queue], upload_queue: Queue
    ) -> None:
        """Add alarms for failed jobs, dead letters and uploads that are not processed."""
        for metric, what in (
            ("ExecutionsFailed", "jobs fail: see their records and the execution history"),
            ("ExecutionsTimedOut", "jobs exceed the time limit of the state machine"),
            ("ExecutionThrottled", "Step Functions throttles the pipeline"),
        ):
            of_machine = {"StateMachineArn": pipeline.arn}
            self._add_alarm(metric, what, ("AWS/States", metric, of_machine, "Sum"))
        self._add_alarm(
            "notification-failures",
            "job notifications fail: check the topic jobs and its KMS key",
            (self._names.metrics_namespace, "NotificationFailures", FUNCTION_DIMENSIONS, "Sum"),
        )
        for role, queue in dead_letter_queues.items():
            self._add_alarm(
                f"dead-{role}",
                f"messages in the dead-letter queue {role}: fix the cause, then redrive them",
                ("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": queue.name}, "Maximum"),
            )
        self._add_alarm(
            "uploads-wait",
            "uploads are not processed: see the log group of start_job",
            ("AWS/SQS", "ApproximateAgeOfOldestMessage", {"QueueName": upload_queue.name}, "Maximum"),
            threshold=MAX_UPLOAD_AGE_S,
        )

    def add_api_alarms(self, api: Api) -> None:
        """Add alarms for server errors and latency."""
        of_api = {"ApiId": api.api.id, "Stage": api.stage.name}
        self._add_alarm(
            "api-5xx",
            "the API responds with server errors (5xx)",
            ("AWS/ApiGateway", "5xx", of_api, "Sum"),
            API_5XX_THRESHOLD,
        )
        self._add_alarm(
            "api-latency",
            f"the 95th percentile of the API latency is above {API_LATENCY_MS / 1000:g} s",
            ("AWS/ApiGateway", "Latency", of_api, "p95"),
            threshold=API_LATENCY_MS,
            periods=3,
        )

    def add_fleet_alarms(self, fleet: GpuFleet) -> None:
        """Add alarms for a missing server and for GPUs, CPUs, memory and disks."""
        self._add_fleet_not_ready_alarm()
        of_fleet = {"AutoScalingGroupName": self._names.fleet}
        for metric, limit, minutes, name, remedy in (
            ("GpuUtilization", GPU_PERCENT, GPU_MINUTES, "GPU", "raise gpuMaxInstances"),
            ("GpuMemoryUtilization", GPU_MEMORY_PERCENT, 5, "GPU memory", "lower gpuMaxStreams"),
            ("CpuUtilization", HOST_PERCENT, HOST_MINUTES, "CPU", "use a larger instance type"),
            ("MemoryUtilization", HOST_PERCENT, HOST_MINUTES, "memory", "lower gpuMaxStreams"),
            ("DiskUtilization", DISK_PERCENT, 5, "disk", "raise gpuVolumeSizeGib"),
        ):
            what = f"high {name} utilization: {remedy}"
            source = (self._names.metrics_namespace, metric, of_fleet, "Maximum")
            self._add_alarm(metric, what, source, limit, periods=minutes, period_s=60)
        for metric, (pattern, what) in LOG_FILTERS.items():
            aws.cloudwatch.LogMetricFilter(
                f"{self._name}-{metric}",
                name=metric,
                log_group_name=fleet.log_group.name,
                pattern=pattern,
                metric_transformation={
                    "name": metric,
                    "namespace": self._names.metrics_namespace,
                    "value": "1",
                    "default_value": "0",
                },
                opts=self._child,
            )
            self._add_alarm(metric, what, (self._names.metrics_namespace, metric, {}, "Sum"))

    def _add_fleet_not_ready_alarm(self) -> None:
        """Count the fleet checks of waiting jobs that find no server.

        The load balancer's metrics cannot be used: without targets, as when no instance starts, it has none.
        """
        minutes = min(FLEET_NOT_READY_MINUTES, self._settings.fleet_start_timeout_s // 60)
        self._add_alarm(
            "no-healthy-host",
            "jobs wait but no server is healthy: check the activity of the Auto Scaling group (capacity, quota) and the server log",
            (self._names.metrics_namespace, "FleetNotReadyChecks", FUNCTION_DIMENSIONS, "Sum"),
            periods=minutes,
            period_s=60,
            datapoints=math.floor(minutes * MIN_BREACHING_SHARE),
        )

    def _add_alarm(
        self,
        role: str,
        description: str,
        source: tuple[str, str, Mapping[str, pulumi.Input[str]], str],
        threshold: float = 1,
        *,
        periods: int = 1,
        period_s: int = DEFAULT_PERIOD_S,
        datapoints: int | None = None,
    ) -> None:
        """Add an alarm; ``source``: namespace, metric, dimensions, and statistic or percentile."""
        namespace, metric, dimensions, statistic = source
        is_percentile = statistic.startswith("p")
        self.alarms.append(
            aws.cloudwatch.MetricAlarm(
                f"{self._name}-{role}",
                name=self._names.resource(role),
                alarm_description=description,
                namespace=namespace,
                metric_name=metric,
                dimensions=dimensions or None,
                statistic=None if is_percentile else statistic,
                extended_statistic=statistic if is_percentile else None,
                threshold=threshold,
                period=period_s,
                evaluation_periods=periods,
                datapoints_to_alarm=datapoints,
                comparison_operator="GreaterThanOrEqualToThreshold",
                treat_missing_data="notBreaching",
                alarm_actions=[self._alerts.arn],
                ok_actions=[self._alerts.arn],
                opts=self._child,
            )
        )
