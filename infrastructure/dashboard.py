"""The CloudWatch dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.naming import Names

# Rows of three graphs in CloudWatch's grid of 24.
WIDTH, HEIGHT, COLUMNS = 8, 6, 3


class Dashboard(Component):
    """Dashboard; ``url`` is its page in the console."""

    def __init__(
        self,
        name: str,
        context: StackContext,
        *,
        functions: Sequence[str],
        queues: Sequence[str],
        **outputs: pulumi.Input[Any],
    ) -> None:
        """``outputs``: the other arguments of ``build_dashboard_body``."""
        super().__init__("dashboard:Dashboard", name, context)
        names = context.names
        body = pulumi.Output.all(**outputs).apply(
            lambda values: json.dumps(
                build_dashboard_body(names, functions=functions, queues=queues, **values)
            )
        )
        self.dashboard = aws.cloudwatch.Dashboard(
            f"{name}-page",
            dashboard_name=names.prefix,
            dashboard_body=body,
            opts=self._child,
        )
        self.url = (
            f"https://{names.region}.console.aws.amazon.com/cloudwatch/home"
            f"?region={names.region}#dashboards/dashboard/{names.prefix}"
        )
        self.register_outputs({"link": self.url})


def build_dashboard_body(
    names: Names,
    *,
    functions: Sequence[str],
    queues: Sequence[str],
    api_id: str,
    state_machine_arn: str,
    load_balancer_suffixes: Sequence[str],
    alarm_arns: Sequence[str],
) -> dict[str, Any]:
    """Return the widgets: alarms first, then symptoms, then causes.

    ``load_balancer_suffixes``: ARN suffixes of target group and load balancer, for metric dimensions.
    """
    own, fleet = names.metrics_namespace, ["AutoScalingGroupName", names.fleet]
    of_api = ["ApiId", api_id, "Stage", "$default"]
    of_machine = ["StateMachineArn", state_machine_arn]
    of_balancer = ["LoadBalancer", load_balancer_suffixes[1]]
    of_hosts = ["TargetGroup", load_balancer_suffixes[0], *of_balancer]
    flows = ("NewFlowCount", "TCP_Target_Reset_Count", "TCP_ELB_Reset_Count")
    instances = [
        *_metrics("AWS/AutoScaling", ("GroupDesiredCapacity", "GroupInServiceInstances"), fleet),
        *_metrics("AWS/NetworkELB", ("HealthyHostCount", "UnHealthyHostCount"), of_hosts),
    ]
    utilization = [f"{part}Utilization" for part in ("Gpu", "GpuMemory", "Cpu", "Memory", "Disk")]
    executions = [f"Executions{end}" for end in ("Started", "Succeeded", "Failed")]
    visible = "ApproximateNumberOfMessagesVisible"
    graphs: list[tuple[str, str, list[list[Any]]]] = [
        ("Jobs", "Sum", _metrics("AWS/States", executions, of_machine)),
        ("Job duration", "p95", _metrics("AWS/States", ["ExecutionTime"], of_machine)),
        ("Results", "Sum", _function_metrics(names, "SucceededJobs", "DegradedResults", "FailedJobs")),
        ("Job success rate, %", "Sum", _success_rate(names)),
        ("Failed sources", "Sum", _function_metrics(names, "FailedLips", "FailedAudio", "FailedFaces")),
        ("Processed video, s", "Sum", _function_metrics(names, "VideoSeconds")),
        ("API", "Sum", _metrics("AWS/ApiGateway", ("Count", "4xx", "5xx"), of_api)),
        ("API, latency", "p95", _metrics("AWS/ApiGateway", ["Latency"], of_api)),
        ("Streams per instance", "Average", _metrics(own, ["Streams"], fleet)),
        ("Server requests", "Sum", _metrics(own, ["Requests"], fleet)),
        (
            "Server request duration, s; real-time factor",
            "Average",
            _metrics(own, ("RequestTime", "RealTimeFactor"), fleet),
        ),
        ("Connections to servers", "Sum", _metrics("AWS/NetworkELB", flows, of_balancer)),
        ("Instances", "Maximum", instances),
        ("Instance utilization, %", "Maximum", _metrics(own, utilization, fleet)),
        ("Server errors", "Sum", _metrics(own, ("ServerErrors", "OutOfMemory"))),
        ("Function errors", "Sum", [["AWS/Lambda", "Errors", "FunctionName", each] for each in functions]),
        (
            "Function duration",
            "p95",
            [["AWS/Lambda", "Duration", "FunctionName", each] for each in functions],
        ),
        ("Function concurrency", "Maximum", _metrics("AWS/Lambda", ("ConcurrentExecutions", "Throttles"))),
        ("Queued messages", "Maximum", [["AWS/SQS", visible, "QueueName", each] for each in queues]),
    ]
    head = {
        "type": "alarm",
        "x": 0,
        "y": 0,
        "width": 24,
        "height": 4,
        "properties": {"title": "Alarms", "alarms": list(alarm_arns)[:100]},
    }
    return {
        "widgets": [head, *(_build_graph(index, names.region, *graph) for index, graph in enumerate(graphs))]
    }


def _success_rate(names: Names) -> list[list[Any]]:
    """Return the percentage of jobs that succeed; no data without jobs."""
    ends = _function_metrics(names, "SucceededJobs", "FailedJobs")
    counted: list[list[Any]] = [
        [*metric, {"id": f"m{index}", "visible": False}] for index, metric in enumerate(ends)
    ]
    share = {
        "expression": "100 * FILL(m0, 0) / (FILL(m0, 0) + FILL(m1, 0))",
        "label": "succeed",
        "id": "share",
    }
    return [[share], *counted]


def _metrics(namespace: str, names: Iterable[str], dimensions: Sequence[str] = ()) -> list[list[str]]:
    return [[namespace, name, *dimensions] for name in names]


def _function_metrics(names: Names, *metrics: str) -> list[list[str]]:
    """Return metrics that the functions publish."""
    return _metrics(names.metrics_namespace, metrics, ("service", "gorggle"))


def _build_graph(
    index: int, region: str, title: str, statistic: str, metrics: list[list[Any]]
) -> dict[str, Any]:
    row, column = divmod(index, COLUMNS)
    return {
        "type": "metric",
        "x": column * WIDTH,
        "y": 4 + row * HEIGHT,
        "width": WIDTH,
        "height": HEIGHT,
        "properties": {
            "title": title,
            "region": region,
            "stat": statistic,
            "period": 60,
            "metrics": metrics,
            "view": "timeSeries",
        },
    }
