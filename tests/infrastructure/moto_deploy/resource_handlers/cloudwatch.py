"""Logs, alarms and budgets."""

from __future__ import annotations

from typing import Any

from tests.infrastructure.moto_deploy.provider_outputs import ACCOUNT
from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    build_arn,
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
    return name, {"arn": build_arn("logs", f"log-group:{name}")}


@handles("cloudwatch/logMetricFilter:LogMetricFilter")
def metric_filter(resource: Resource, inputs: Inputs) -> CallGenerator:
    metric, _tags = pop_inputs(inputs, "metricTransformation", "tags")
    inputs["metricTransformations"] = {
        "metricName": metric["name"],
        "metricNamespace": metric["namespace"],
        "metricValue": metric["value"],
        "defaultValue": metric["defaultValue"],
    }
    yield convert_call("logs.PutMetricFilter", inputs, {"name": "filterName", "pattern": "filterPattern"})
    return inputs["name"], {}


@handles("cloudwatch/metricAlarm:MetricAlarm")
def alarm(resource: Resource, inputs: Inputs) -> CallGenerator:
    dimensions, queries, tags = pop_inputs(inputs, "dimensions", "metricQueries", "tags")
    if queries:
        inputs["metrics"] = [_convert_query(each) for each in queries]
    yield convert_call(
        "cloudwatch.PutMetricAlarm",
        inputs,
        {"name": "alarmName", "okActions": "oKActions"},
        Dimensions=tag_list(dimensions, "Name", "Value") if dimensions else None,
        Tags=tag_list(tags),
    )
    return inputs["name"], {"arn": build_arn("cloudwatch", f"alarm:{inputs['name']}")}


def _convert_query(query: Inputs) -> dict[str, Any]:
    if metric := query.pop("metric", None):
        period, statistic, dimensions = pop_inputs(metric, "period", "stat", "dimensions")
        metric["dimensions"] = tag_list(dimensions or {}, "name", "value")
        query["metricStat"] = {"metric": metric, "period": period, "stat": statistic}
    return query


@handles("budgets/budget:Budget")
def budget(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, notifications, filters, _tags = pop_inputs(inputs, "name", "notifications", "costFilters", "tags")
    kind, amount, unit, period = pop_inputs(inputs, "budgetType", "limitAmount", "limitUnit", "timeUnit")
    assert_consumed(inputs)
    parameters: dict[str, Any] = {
        "BudgetName": name,
        "BudgetType": kind,
        "BudgetLimit": {"Amount": amount, "Unit": unit},
        "TimeUnit": period,
    }
    if filters:
        parameters["CostFilters"] = {each["name"]: each["values"] for each in filters}
    yield call(
        "budgets.CreateBudget",
        AccountId=ACCOUNT,
        Budget=parameters,
        NotificationsWithSubscribers=[_convert_notification(each) for each in notifications],
    )
    return name, {}


def _convert_notification(notification: Inputs) -> dict[str, Any]:
    (topics,) = pop_inputs(notification, "subscriberSnsTopicArns")
    names = ("comparisonOperator", "threshold", "thresholdType", "notificationType")
    assert_consumed(notification, *names)
    return {
        "Notification": {name[0].upper() + name[1:]: notification[name] for name in names},
        "Subscribers": [{"SubscriptionType": "SNS", "Address": each} for each in topics],
    }
