"""The GPU fleet: launch template, group, policies."""

from __future__ import annotations

from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    build_arn,
    call,
    convert_call,
    ec2_tags,
    handles,
    pop_inputs,
    tag_list,
)


@handles("ec2/launchTemplate:LaunchTemplate")
def launch_template(resource: Resource, inputs: Inputs) -> CallGenerator:
    # updateDefaultVersion is for the provider.
    name, tags, specifications, _update = pop_inputs(
        inputs, "name", "tags", "tagSpecifications", "updateDefaultVersion"
    )
    inputs["tagSpecifications"] = [
        {"resourceType": each["resourceType"], "tags": tag_list(each["tags"], "key", "value")}
        for each in specifications
    ]
    inputs["securityGroupIds"] = inputs.pop("vpcSecurityGroupIds")
    request = {"launchTemplateName": name, "launchTemplateData": inputs}
    result = yield convert_call("ec2.CreateLaunchTemplate", request, **ec2_tags("launch-template")(tags))
    created = result["LaunchTemplate"]
    return created["LaunchTemplateId"], {"latestVersion": created["LatestVersionNumber"]}


@handles("autoscaling/group:Group")
def group(resource: Resource, inputs: Inputs) -> CallGenerator:
    # Waiting for capacity and instance refresh are done by the provider.
    subnets, hooks, metrics, _wait, _refresh, tags = pop_inputs(
        inputs,
        "vpcZoneIdentifiers",
        "initialLifecycleHooks",
        "enabledMetrics",
        "waitForCapacityTimeout",
        "instanceRefresh",
        "tags",
    )
    name = inputs["name"]
    for hook in hooks:
        hook["lifecycleHookName"] = hook.pop("name")
    for tag in tags:
        tag.update(resourceId=name, resourceType="auto-scaling-group")
    yield convert_call(
        "autoscaling.CreateAutoScalingGroup",
        {**inputs, "lifecycleHookSpecificationList": hooks, "tags": tags},
        {"name": "autoScalingGroupName", "targetGroupArns": "targetGroupARNs"},
        VPCZoneIdentifier=",".join(subnets),
    )
    yield call(
        "autoscaling.EnableMetricsCollection",
        AutoScalingGroupName=name,
        Metrics=metrics,
        Granularity="1Minute",
    )
    path = f"autoScalingGroup:00000000-0000-4000-8000-000000000000:autoScalingGroupName/{name}"
    return name, {"arn": build_arn("autoscaling", path)}


@handles("autoscaling/policy:Policy")
def policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    if tracking := inputs.get("targetTrackingConfiguration"):
        metric = tracking["customizedMetricSpecification"]
        metric["dimensions"] = metric.pop("metricDimensions")
    result = yield convert_call("autoscaling.PutScalingPolicy", inputs, {"name": "policyName"})
    return inputs["name"], {"arn": result["PolicyARN"]}


@handles("autoscaling/schedule:Schedule")
def schedule(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    # -1 means to the provider: do not change.
    changed = {name: value for name, value in inputs.items() if value != -1}
    yield convert_call("autoscaling.PutScheduledUpdateGroupAction", changed)
    return inputs["scheduledActionName"], {}
