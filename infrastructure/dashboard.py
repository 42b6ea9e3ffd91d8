"""One page that shows whether the stack is well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure.naming import Names

# Rows of three graphs in CloudWatch's grid of 24.
WIDTH, HEIGHT, COLUMNS = 8, 6, 3


class Dashboard(pulumi.ComponentResource):
    """A CloudWatch dashboard."""

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        functions: Sequence[str],
        queues: Sequence[str],
        api_id: pulumi.Output[str],
        machine_arn: pulumi.Output[str],
        hosts: tuple[pulumi.Output[str], pulumi.Output[str]],
        alarm_arns: Sequence[pulumi.Output[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """``hosts``: the last parts of the ARNs of target group and load balancer."""
        super().__init__("gorggle:dashboard:Dashboard", name, None, opts)
        found = pulumi.Output.all(api=api_id, machine=machine_arn, hosts=list(hosts), alarms=list(alarm_arns))
        body = found.apply(
            lambda known: json.dumps(
                dashboard_body(
                    names,
                    functions=functions,
                    queues=queues,
                    api_id=known["api"],
                    machine=known["machine"],
                    hosts=known["hosts"],
                    alarms=known["alarms"],
                )
            )
        )
        self.dashboard = aws.cloudwatch.Dashboard(
            f"{name}-page",
            dashboard_name=names.prefix,
            dashboard_body=body,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.link = (
            f"https://{names.region}.console.aws.amazon.com/cloudwatch/home"
            f"?region={names.region}#dashboards/dashboard/{names.prefix}"
        )
        self.register_outputs({"link": self.link})


def dashboard_body(
    names: Names,
    *,
    functions: Sequence[str],
    queues: Sequence[str],
    api_id: str,
    machine: str,
    hosts: Sequence[str],
    alarms: Sequence[str],
) -> dict[str, Any]:
    """Its widgets: alarms first, then what people feel, then causes."""
    fleet = ["AutoScalingGroupName", names.fleet]
    of_api = ["ApiId", api_id, "Stage", "$default"]
    of_machine = ["StateMachineArn", machine]
    of_hosts = ["TargetGroup", hosts[0], "LoadBalancer", hosts[1]]
    graphs: list[tuple[str, str, list[list[Any]]]] = [
        (
            "Jobs",
            "Sum",
            [["AWS/States", f"Executions{end}", *of_machine] for end in ("Started", "Succeeded", "Failed")],
        ),
        ("Time of a job", "p95", [["AWS/States", "ExecutionTime", *of_machine]]),
        ("Results", "Sum", _own(names, "SucceededJobs", "DegradedResults", "FailedJobs")),
        ("Jobs that succeed, %", "Sum", _success(names)),
        ("Sources lost", "Sum", _own(names, "LostLips", "LostSound", "LostFaces")),
        ("Video taken, s", "Sum", _own(names, "VideoSeconds")),
        ("API", "Sum", [["AWS/ApiGateway", metric, *of_api] for metric in ("Count", "4xx", "5xx")]),
        ("API, latency", "p95", [["AWS/ApiGateway", "Latency", *of_api]]),
        ("Streams per instance", "Average", [[names.metrics, "Streams", *fleet]]),
        ("Calls of the server", "Sum", [[names.metrics, "Requests", *fleet]]),
        (
            "A call of the server, s; a second of video, s",
            "Average",
            [[names.metrics, what, *fleet] for what in ("RequestTime", "RealTimeFactor")],
        ),
        (
            "Connections to servers",
            "Sum",
            [
                ["AWS/NetworkELB", what, "LoadBalancer", hosts[1]]
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
            "Instances, used %",
            "Maximum",
            [
                [names.metrics, f"{what}Utilization", *fleet]
                for what in ("Gpu", "GpuMemory", "Cpu", "Memory", "Disk")
            ],
        ),
        ("Server's errors", "Sum", [[names.metrics, what] for what in ("ServerErrors", "OutOfMemory")]),
        ("Functions' errors", "Sum", [["AWS/Lambda", "Errors", "FunctionName", each] for each in functions]),
        ("Functions' time", "p95", [["AWS/Lambda", "Duration", "FunctionName", each] for each in functions]),
        (
            "Functions at once",
            "Maximum",
            [["AWS/Lambda", "ConcurrentExecutions"], ["AWS/Lambda", "Throttles"]],
        ),
        (
            "Messages waiting",
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
        "properties": {"title": "Alarms", "alarms": list(alarms)[:100]},
    }
    return {"widgets": [head, *(_graph(index, names.region, *graph) for index, graph in enumerate(graphs))]}


def _success(names: Names) -> list[list[Any]]:
    """The share of jobs that end well: of nothing there is none."""
    ends = _own(names, "SucceededJobs", "FailedJobs")
    counted: list[list[Any]] = [
        [*metric, {"id": f"m{index}", "visible": False}] for index, metric in enumerate(ends)
    ]
    share = {
        "expression": "100 * FILL(m0, 0) / (FILL(m0, 0) + FILL(m1, 0))",
        "label": "succeed",
        "id": "share",
    }
    return [[share], *counted]


def _own(names: Names, *metrics: str) -> list[list[str]]:
    """What the functions measure themselves."""
    return [[names.metrics, metric, "service", "gorggle"] for metric in metrics]


def _graph(index: int, region: str, title: str, statistic: str, metrics: list[list[Any]]) -> dict[str, Any]:
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
