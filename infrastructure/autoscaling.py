"""Scaling policies of the GPU fleet: by streams per instance, and to the minimum size when idle."""

from __future__ import annotations

from typing import Any

import pulumi_aws as aws

from infrastructure.component import Component, StackContext

PERIOD_S = 60
# Scale in when the streams per instance fall below this share of the target.
SCALE_IN_HEADROOM = 0.4
SCALE_IN_MINUTES = 10
STREAMS_METRIC = "Streams"


class Scaling(Component):
    """Scaling policies and the alarms that trigger them."""

    def __init__(self, name: str, context: StackContext, fleet: aws.autoscaling.Group) -> None:
        super().__init__("scaling:Scaling", name, context)
        self._fleet = fleet
        self._add_scale_out_policy()
        self._add_scale_in_policy()
        self._add_idle_policy()
        self.register_outputs({})

    def _add_scale_out_policy(self) -> None:
        aws.autoscaling.Policy(
            f"{self._name}-grow",
            name="grow",
            autoscaling_group_name=self._fleet.name,
            policy_type="TargetTrackingScaling",
            target_tracking_configuration={
                "customized_metric_specification": {
                    "namespace": self._names.metrics_namespace,
                    "metric_name": STREAMS_METRIC,
                    "statistic": "Average",
                    "metric_dimensions": [{"name": "AutoScalingGroupName", "value": self._names.fleet}],
                },
                "target_value": self._settings.gpu_target_streams_per_instance,
                # Target tracking would scale in after 15 minutes, regardless of the settings.
                "disable_scale_in": True,
            },
            opts=self._child,
        )

    def _add_scale_in_policy(self) -> None:
        policy = self._create_step_policy("shrink", "ChangeInCapacity", -1)
        spare = self._settings.gpu_target_streams_per_instance * SCALE_IN_HEADROOM
        self._create_alarm(
            "shrink",
            "scale in by one instance: the others have capacity for its streams",
            policy,
            minutes=SCALE_IN_MINUTES,
            queries=[
                self._query_fleet("streams", self._names.metrics_namespace, STREAMS_METRIC, "Average"),
                self._query_fleet("servers", "AWS/AutoScaling", "GroupInServiceInstances", "Minimum"),
                _expression(f"IF(servers > 1 AND streams < {spare:g}, 1, 0)", "an instance is not needed"),
            ],
        )

    def _add_idle_policy(self) -> None:
        """Scale to the minimum size after some minutes without streams and without jobs that wait for the fleet.

        Invocations of ``scale_up_fleet`` and ``check_fleet`` count as use, so that the fleet is not stopped while a job
        waits for it. Every instance reports its streams, also while its server starts: missing data means no instance.
        """
        policy = self._create_step_policy("sleep", "ExactCapacity", self._settings.gpu_min_instances)
        calls = [
            _query(
                f"calls{index}",
                "AWS/Lambda",
                "Invocations",
                "Sum",
                {"FunctionName": self._names.resource(name)},
            )
            for index, name in enumerate(("scale_up_fleet", "check_fleet"))
        ]
        self._create_alarm(
            "sleep",
            "scale to the minimum: the fleet is idle",
            policy,
            minutes=self._settings.gpu_idle_minutes,
            queries=[
                self._query_fleet("streams", self._names.metrics_namespace, STREAMS_METRIC, "Maximum"),
                *calls,
                _expression("IF(streams + FILL(calls0, 0) + FILL(calls1, 0) < 1, 1, 0)", "the fleet is idle"),
            ],
        )

    def _create_step_policy(self, role: str, kind: str, adjustment: int) -> aws.autoscaling.Policy:
        return aws.autoscaling.Policy(
            f"{self._name}-{role}",
            name=role,
            autoscaling_group_name=self._fleet.name,
            policy_type="StepScaling",
            adjustment_type=kind,
            metric_aggregation_type="Maximum",
            step_adjustments=[{"scaling_adjustment": adjustment, "metric_interval_lower_bound": "0"}],
            opts=self._child,
        )

    def _create_alarm(
        self,
        role: str,
        description: str,
        policy: aws.autoscaling.Policy,
        *,
        minutes: int,
        queries: list[dict[str, Any]],
    ) -> None:
        aws.cloudwatch.MetricAlarm(
            f"{self._name}-{role}-alarm",
            name=f"{self._names.prefix}-fleet-{role}",
            alarm_description=description,
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            evaluation_periods=minutes,
            datapoints_to_alarm=minutes,
            metric_queries=queries,
            treat_missing_data="notBreaching",
            alarm_actions=[policy.arn],
            opts=self._child,
        )

    def _query_fleet(self, identity: str, namespace: str, metric: str, statistic: str) -> dict[str, Any]:
        dimensions = {"AutoScalingGroupName": self._names.fleet}
        return _query(identity, namespace, metric, statistic, dimensions)


def _query(
    identity: str, namespace: str, metric: str, statistic: str, dimensions: dict[str, str]
) -> dict[str, Any]:
    """Return a metric query for the expression of an alarm."""
    return {
        "id": identity,
        "return_data": False,
        "metric": {
            "namespace": namespace,
            "metric_name": metric,
            "stat": statistic,
            "period": PERIOD_S,
            "dimensions": dimensions,
        },
    }


def _expression(formula: str, label: str) -> dict[str, Any]:
    return {"id": "result", "expression": formula, "label": label, "return_data": True}
