"""The CloudWatch dashboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    fleet = ["AutoScalingGroupName", names.fleet]
    of_api = ["ApiId", api_id, "Stage", "$default"]
    of_machine = ["StateMachineArn", state_machine_arn]
    of_hosts = ["TargetGroup", load_balancer_suffixes[0], "LoadBalancer", load_balancer_suffixes[1]]
    graphs: list[tuple[str, str, list[list[Any]]]] = [
        (
            "Jobs",
            "Sum",
            [["AWS/States", f"Executions{end}", *of_machine] for end in ("Started", "Succeeded", "Failed")],
        ),
        ("Job duration", "p95", [["AWS/States", "ExecutionTime", *of_machine]]),
        ("Results", "Sum", _function_metrics(names, "SucceededJobs", "DegradedResults", "FailedJobs")),
        ("Job success rate, %", "Sum", _success_rate(names)),
        ("Failed sources", "Sum", _function_metrics(names, "FailedLips", "FailedAudio", "FailedFaces")),
        ("Processed video, s", "Sum", _function_metrics(names, "VideoSeconds")),
        ("API", "Sum", [["AWS/ApiGateway", metric, *of_api] for metric in ("Count", "4xx", "5xx")]),
        ("API, latency", "p95", [["AWS/ApiGateway", "Latency", *of_api]]),
        ("Streams per instance", "Average", [[names.metrics_namespace, "Streams", *fleet]]),
        ("Server requests", "Sum", [[names.metrics_namespace, "Requests", *fleet]]),
        (
            "Server request duration, s; real-time factor",
            "Average",
            [[names.metrics_namespace, what, *fleet] for what in ("RequestTime", "RealTimeFactor")],
        ),
        (
            "Connections to servers",
            "Sum",
            [
                ["AWS/NetworkELB", what, "LoadBalancer", load_balancer_suffixes[1]]
                for what in ("NewFlowCount", "TCP_Target_Reset_Count", "TCP_ELB_Reset_Count")
            ],
        ),
        (
            "Instances",
            "Maximum",
            [
                *(
                    ["AWS/AutoScaling", f"Group{what}", *fleet]
                    for what in ("DesiredCapacity", "InServiceInstances")
                ),
                *(["AWS/NetworkELB", f"{what}HostCount", *of_hosts] for what in ("Healthy", "UnHealthy")),
            ],
        ),
        (
            "Instance utilization, %",
            "Maximum",
            [
                [names.metrics_namespace, f"{what}Utilization", *fleet]
                for what in ("Gpu", "GpuMemory", "Cpu", "Memory", "Disk")
            ],
        ),
        (
            "Server errors",
            "Sum",
            [[names.metrics_namespace, what] for what in ("ServerErrors", "OutOfMemory")],
        ),
        ("Function errors", "Sum", [["AWS/Lambda", "Errors", "FunctionName", each] for each in functions]),
        (
            "Function duration",
            "p95",
            [["AWS/Lambda", "Duration", "FunctionName", each] for each in functions],
        ),
        (
            "Function concurrency",
            "Maximum",
            [["AWS/Lambda", "ConcurrentExecutions"], ["AWS/Lambda", "Throttles"]],
        ),
        (
            "Queued messages",
            "Maximum",
            [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", each] for each in queues],
        ),
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


def _function_metrics(names: Names, *metrics: str) -> list[list[str]]:
    """Return metrics that the functions publish."""
    return [[names.metrics_namespace, metric, "service", "gorggle"] for metric in metrics]


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
