"""Logs, alarms, dashboards and budgets."""

from __future__ import annotations

from typing import Any

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    call,
    convert_call,
    handles,
    pop_inputs,
    tag_list,
)


@handles("cloudwatch/logGroup:LogGroup")
def log_group(resource: Resource, inputs: Inputs) -> CallGenerator:
    days, tags = pop_inputs(inputs, "retentionInDays", "tags")
    name = inputs["name"]
    yield convert_call("logs.CreateLogGroup", inputs, {"name": "logGroupName"}, tags=tags)
    yield call("logs.PutRetentionPolicy", logGroupName=name, retentionInDays=days)
    return name, {"arn": f"arn:aws:logs:us-east-1:123456789012:log-group:{name}"}


@handles("cloudwatch/logMetricFilter:LogMetricFilter")
def metric_filter(resource: Resource, inputs: Inputs) -> CallGenerator:
    transformation, _tags = pop_inputs(inputs, "metricTransformation", "tags")
    made = {
        "metricName": transformation["name"],
        "metricNamespace": transformation["namespace"],
        "metricValue": transformation["value"],
        "defaultValue": transformation["defaultValue"],
    }
    words = {"name": "filterName", "pattern": "filterPattern"}
    yield convert_call("logs.PutMetricFilter", {**inputs, "metricTransformations": [made]}, words)
    return inputs["name"], {}


@handles("cloudwatch/metricAlarm:MetricAlarm")
def alarm(resource: Resource, inputs: Inputs) -> CallGenerator:
    dimensions, queries, tags = pop_inputs(inputs, "dimensions", "metricQueries", "tags")
    words = {"name": "alarmName", "okActions": "oKActions"}
    if queries:
        inputs["metrics"] = [_convert_query(each) for each in queries]
    yield convert_call(
        "cloudwatch.PutMetricAlarm",
        inputs,
        words,
        Dimensions=tag_list(dimensions, "Name", "Value") if dimensions else None,
        Tags=tag_list(tags),
    )
    name = inputs["name"]
    return name, {"arn": f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"}


def _convert_query(query: Inputs) -> dict[str, Any]:
    metric = query.pop("metric", None)
    if metric:
        found = {
            "namespace": metric["namespace"],
            "metricName": metric["metricName"],
            "dimensions": tag_list(metric.get("dimensions") or {}, "name", "value"),
        }
        query["metricStat"] = {"metric": found, "period": metric["period"], "stat": metric["stat"]}
    return query


@handles("cloudwatch/dashboard:Dashboard")
def dashboard(resource: Resource, inputs: Inputs) -> CallGenerator:
    # The provider gives dashboards no tags.
    del inputs["tags"]
    yield convert_call("cloudwatch.PutDashboard", inputs)
    return inputs["dashboardName"], {}


@handles("budgets/budget:Budget")
def budget(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, notices, filters, _tags = pop_inputs(inputs, "name", "notifications", "costFilters", "tags")
    kind, amount, unit, period = pop_inputs(inputs, "budgetType", "limitAmount", "limitUnit", "timeUnit")
    assert_consumed(inputs)
    limit = {"Amount": amount, "Unit": unit}
    wanted: dict[str, Any] = {
        "BudgetName": name,
        "BudgetType": kind,
        "BudgetLimit": limit,
        "TimeUnit": period,
    }
    if filters:
        wanted["CostFilters"] = {each["name"]: each["values"] for each in filters}
    yield call(
        "budgets.CreateBudget",
        AccountId="123456789012",
        Budget=wanted,
        NotificationsWithSubscribers=[_convert_notification(each) for each in notices],
    )
    return name, {}


def _convert_notification(notice: Inputs) -> dict[str, Any]:
    (topics,) = pop_inputs(notice, "subscriberSnsTopicArns")
    assert_consumed(notice, "comparisonOperator", "threshold", "thresholdType", "notificationType")
    wanted = {
        "ComparisonOperator": notice["comparisonOperator"],
        "Threshold": float(notice["threshold"]),
        "ThresholdType": notice["thresholdType"],
        "NotificationType": notice["notificationType"],
    }
    subscribers = [{"SubscriptionType": "SNS", "Address": each} for each in topics]
    return {"Notification": wanted, "Subscribers": subscribers}


@handles("budgets/budgetAction:BudgetAction")
def budget_action(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    made = yield convert_call("budgets.CreateBudgetAction", inputs, AccountId="123456789012")
    return made["ActionId"], {}
