"""The monthly budget: alerts, and stopping the GPU fleet when it is spent."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.component import Component, StackContext
from infrastructure.lambda_function import LambdaFunction
from infrastructure.messaging import Topic

ALERT_PERCENT = (50.0, 80.0)
SCALE_UP_ACTIONS = ("autoscaling:SetDesiredCapacity", "autoscaling:UpdateAutoScalingGroup")


class Budget(Component):
    """Budget with alerts at 50, 80 and 100 %.

    At 100 % a message to ``stop_topic`` sets the fleet's maximum size to zero. In case the message is lost, a budget action
    also denies ``scale_up_fleet`` to start the fleet. AWS's cost data is some hours old.
    """

    def __init__(
        self,
        name: str,
        context: StackContext,
        alerts: Topic,
        stop_topic: Topic,
        scale_up_function: LambdaFunction,
    ) -> None:
        super().__init__("budget:Budget", name, context)
        settings = context.settings
        notices = [_build_notification(percent, "ACTUAL", alerts) for percent in ALERT_PERCENT]
        notices.append(_build_notification(100.0, "FORECASTED", alerts))
        notices.append(
            _build_notification(100.0, "ACTUAL", stop_topic if settings.stop_fleet_on_budget else alerts)
        )
        self.budget = aws.budgets.Budget(
            f"{name}-month",
            name=context.names.prefix,
            budget_type="COST",
            limit_amount=f"{settings.monthly_budget_usd:.2f}",
            limit_unit="USD",
            time_unit="MONTHLY",
            cost_filters=self._build_cost_filters(),
            notifications=notices,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[alerts.policy, stop_topic.policy]),
        )
        if settings.stop_fleet_on_budget:
            self._deny_scale_up(alerts, scale_up_function)
        self.register_outputs({})

    def _build_cost_filters(self) -> list[dict[str, object]] | None:
        if self._settings.budget_scope == "account":
            return None
        return [{"name": "TagKeyValue", "values": [f"user:gorggle:stack${self._names.stack}"]}]

    def _deny_scale_up(self, alerts: Topic, scale_up_function: LambdaFunction) -> None:
        deny_policy = aws.iam.Policy(
            f"{self._name}-asleep",
            name=f"{self._names.prefix}-fleet-stays-asleep",
            policy=iam.build_policy([iam.Grant(SCALE_UP_ACTIONS, [self._names.fleet_arn], effect="Deny")]),
            opts=self._child,
        )
        grant = iam.Grant(
            ("iam:AttachRolePolicy", "iam:DetachRolePolicy"),
            [scale_up_function.role.arn],
            {"ArnEquals": {"iam:PolicyARN": deny_policy.arn}},
        )
        action_role = iam.ServiceRole(
            f"{self._names.prefix}-budget",
            "budgets.amazonaws.com",
            [grant],
            conditions=iam.source_account_condition(self._names.account),
            opts=self._child,
        )
        aws.budgets.BudgetAction(
            f"{self._name}-brake",
            budget_name=self.budget.name,
            action_type="APPLY_IAM_POLICY",
            approval_model="AUTOMATIC",
            notification_type="ACTUAL",
            action_threshold={"action_threshold_type": "PERCENTAGE", "action_threshold_value": 100.0},
            definition={
                "iam_action_definition": {
                    "policy_arn": deny_policy.arn,
                    "roles": [scale_up_function.role.role.name],
                }
            },
            execution_role_arn=action_role.arn,
            subscribers=[{"subscription_type": "SNS", "address": alerts.arn}],
            opts=self._child,
        )


def _build_notification(percent: float, kind: str, topic: Topic) -> dict[str, object]:
    return {
        "comparison_operator": "GREATER_THAN",
        "threshold": percent,
        "threshold_type": "PERCENTAGE",
        "notification_type": kind,
        "subscriber_sns_topic_arns": [topic.arn],
    }
