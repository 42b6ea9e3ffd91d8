"""The GPU fleet: launch template, group, policies."""

from __future__ import annotations

from typing import Any

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.ec2_elb import tag_specifications
from gorggle_local.aws.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    call,
    convert_call,
    handles,
    pop_inputs,
)


@handles("ec2/launchTemplate:LaunchTemplate")
def launch_template(resource: Resource, inputs: Inputs) -> CallGenerator:
    # The provider itself makes the newest version the default one.
    name, tags, launched, _newest = pop_inputs(
        inputs, "name", "tags", "tagSpecifications", "updateDefaultVersion"
    )
    inputs["tagSpecifications"] = [
        {
            "resourceType": each["resourceType"],
            "tags": [{"key": k, "value": v} for k, v in each["tags"].items()],
        }
        for each in launched
    ]
    wrapped = {
        "launchTemplateName": name,
        "launchTemplateData": {"securityGroupIds": inputs.pop("vpcSecurityGroupIds"), **inputs},
    }
    made = yield convert_call(
        "ec2.CreateLaunchTemplate", wrapped, TagSpecifications=tag_specifications("launch-template", tags)
    )
    found = made["LaunchTemplate"]
    return found["LaunchTemplateId"], {"latestVersion": found["LatestVersionNumber"]}


@handles("autoscaling/group:Group")
def group(resource: Resource, inputs: Inputs) -> CallGenerator:
    # Waiting for capacity and refreshing instances are what the provider does around the group.
    zones, hooks, metrics, _wait, _refresh, tags = pop_inputs(
        inputs,
        "vpcZoneIdentifiers",
        "initialLifecycleHooks",
        "enabledMetrics",
        "waitForCapacityTimeout",
        "instanceRefresh",
        "tags",
    )
    kind = "auto-scaling-group"
    listed = [
        {
            "ResourceId": inputs["name"],
            "ResourceType": kind,
            "Key": each["key"],
            "Value": each["value"],
            "PropagateAtLaunch": each["propagateAtLaunch"],
        }
        for each in tags
    ]
    words = {
        "name": "autoScalingGroupName",
        "maxInstanceLifetime": "maxInstanceLifetime",
        "targetGroupArns": "targetGroupARNs",
    }
    renamed_hooks = [{**each, "lifecycleHookName": each["name"]} for each in hooks]
    for each in renamed_hooks:
        del each["name"]
    yield convert_call(
        "autoscaling.CreateAutoScalingGroup",
        {**inputs, "lifecycleHookSpecificationList": renamed_hooks},
        words,
        VPCZoneIdentifier=",".join(zones),
        Tags=listed,
    )
    name = inputs["name"]
    yield call(
        "autoscaling.EnableMetricsCollection",
        AutoScalingGroupName=name,
        Metrics=metrics,
        Granularity="1Minute",
    )
    address = f"autoScalingGroup:00000000-0000-4000-8000-000000000000:autoScalingGroupName/{name}"
    return name, {"arn": f"arn:aws:autoscaling:us-east-1:123456789012:{address}"}


@handles("autoscaling/policy:Policy")
def policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    tracking: dict[str, Any] | None = inputs.get("targetTrackingConfiguration")
    if tracking:
        metric = tracking["customizedMetricSpecification"]
        metric["dimensions"] = metric.pop("metricDimensions")
    made = yield convert_call("autoscaling.PutScalingPolicy", inputs, {"name": "policyName"})
    return inputs["name"], {"arn": made["PolicyARN"]}


@handles("autoscaling/schedule:Schedule")
def schedule(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    # -1 says to the provider: leave it as it is.
    kept = {name: value for name, value in inputs.items() if value != -1}
    yield convert_call("autoscaling.PutScheduledUpdateGroupAction", kept)
    return inputs["scheduledActionName"], {}
