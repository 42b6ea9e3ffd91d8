"""Security and operations rules for the resources of every stack: encryption, least privilege, timeouts, alarms, tags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gorggle_lambdas.aws_costs import cost_model
from infrastructure.config import StackSettings
from infrastructure.instance_agent import metrics

# Recording a stack takes seconds, and minutes under load.
pytestmark = pytest.mark.timeout(1200)

MAX_EXECUTION_S = 365 * 24 * 3600
# Actions that AWS cannot restrict to a resource.
UNRESTRICTABLE_ACTIONS = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
    "transcribe:StartTranscriptionJob",
    "transcribe:GetTranscriptionJob",
    "rekognition:StartFaceDetection",
    "rekognition:GetFaceDetection",
    "autoscaling:DescribeAutoScalingGroups",
    "cloudwatch:PutMetricData",
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
# The provider's default tags do not apply to this type, so it sets its tags itself.
AUTOSCALING_GROUP_TYPE = "aws:autoscaling/group:Group"


def parse_statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


def find_allowed(stack: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and statement of every grant of a role."""
    for policy in stack.find("RolePolicy"):
        for statement in parse_statements(policy.inputs["policy"]):
            if statement["Effect"] == "Allow":
                yield policy.name, statement


def test_every_bucket_is_encrypted_private_and_tls_only(any_stack: Any) -> None:
    buckets = {each.inputs["bucket"] for each in any_stack.find("Bucket")}
    assert len(buckets) >= 3
    for kind in ("BucketServerSideEncryptionConfiguration", "BucketPublicAccessBlock", "BucketPolicy"):
        assert {each.inputs["bucket"] for each in any_stack.find(kind)} == buckets
    for block in any_stack.find("BucketPublicAccessBlock"):
        assert all(
            block.inputs[each]
            for each in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
        )
    for policy in any_stack.find("BucketPolicy"):
        first, *others = parse_statements(policy.inputs["policy"])
        assert first["Effect"] == "Deny"
        assert first["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert first["Resource"] == [f"arn:aws:s3:::{policy.inputs['bucket']}{end}" for end in ("", "/*")]
        assert all(
            each["Principal"] == {"Service": "cloudfront.amazonaws.com"} and each["Condition"]
            for each in others
        )


def test_user_data_is_encrypted_with_the_stack_s_key(any_stack: Any) -> None:
    (key,) = any_stack.find("Key")
    assert key.inputs["enableKeyRotation"]
    rules = {
        each.inputs["bucket"].split("-")[2]: each.inputs["rules"][0]["applyServerSideEncryptionByDefault"]
        for each in any_stack.find("BucketServerSideEncryptionConfiguration")
    }
    for role in ("uploads", "results"):
        assert rules[role] == {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": key.outputs["arn"]}
    for table in any_stack.find("Table"):
        assert table.inputs["serverSideEncryption"] == {"enabled": True, "kmsKeyArn": key.outputs["arn"]}
    for topic in any_stack.find("Topic"):
        assert topic.inputs["kmsMasterKeyId"] == key.outputs["arn"]
    for group in any_stack.find("LogGroup"):
        assert group.inputs["kmsKeyId"] == key.outputs["arn"]
    for queue in any_stack.find("Queue"):
        assert queue.inputs["sqsManagedSseEnabled"] is True


def test_uploads_results_and_records_expire(build_stack: Any) -> None:
    stack = build_stack("default")
    for each in stack.find("BucketLifecycleConfiguration"):
        rules = {rule["id"]: rule for rule in each.inputs["rules"]}
        assert rules["unfinished-uploads"]["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 1}
        if each.name.startswith(("uploads", "results")):
            assert rules["age"]["expiration"] == {"days": 30}
    versioned = {each.inputs["bucket"] for each in stack.find("BucketVersioning")}
    assert {name.split("-")[2] for name in versioned} == {"uploads", "artifacts"}
    for table in stack.find("Table"):
        assert table.inputs["ttl"]["enabled"]
        assert table.inputs["billingMode"] == "PAY_PER_REQUEST"


def test_roles_have_no_unlisted_wildcard(any_stack: Any) -> None:
    for role, statement in find_allowed(any_stack):
        assert not any("*" in action for action in statement["Action"]), role
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= UNRESTRICTABLE_ACTIONS, f"{role}: {statement['Action']}"
        assert all(resource for resource in statement["Resource"])


def test_a_wildcard_grant_requires_a_reason() -> None:
    from infrastructure.iam import Grant

    with pytest.raises(ValueError, match="needs a reason"):
        Grant(("s3:GetObject",), ["*"])


def test_every_function_has_a_separate_role(any_stack: Any) -> None:
    functions = any_stack.find("Function")
    roles = [each.inputs["role"] for each in functions]
    assert len(set(roles)) == len(functions) >= 20
    roles_with_policy = {each.inputs["role"] for each in any_stack.find("RolePolicy")}
    assert {arn.rpartition("/")[2] for arn in roles} <= roles_with_policy


def test_a_role_is_assumed_by_one_service_for_this_account_only(any_stack: Any) -> None:
    for role in any_stack.find("Role"):
        (statement,) = parse_statements(role.inputs["assumeRolePolicy"])
        service = statement["Principal"]["Service"]
        assert isinstance(service, str)
        if service not in ("lambda.amazonaws.com", "ec2.amazonaws.com"):
            assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}, (
                role.name
            )


def test_no_ingress_from_the_internet(any_stack: Any) -> None:
    rules, subnets = any_stack.find("SecurityGroupIngressRule"), any_stack.find("Subnet")
    assert rules
    assert subnets
    for rule in rules:
        assert rule.inputs.get("cidrIpv4") in (None, "10.71.0.0/16"), rule.name
        assert rule.inputs["fromPort"] == rule.inputs["toPort"] in (443, 9464, 50051)
    for subnet in subnets:
        assert subnet.inputs["mapPublicIpOnLaunch"] is False
    for balancer in any_stack.find("LoadBalancer"):
        assert balancer.inputs["internal"] is True


def test_functions_reach_the_server_only_through_the_balancer(build_stack: Any) -> None:
    stack = build_stack("default")
    groups = {
        each.id: each.name.removeprefix("gpu-").removesuffix("-group") for each in stack.find("SecurityGroup")
    }
    allowed_flows = {
        (
            groups[rule.inputs["referencedSecurityGroupId"]],
            groups[rule.inputs["securityGroupId"]],
            rule.inputs["toPort"],
        )
        for rule in stack.find("SecurityGroupIngressRule")
        if "referencedSecurityGroupId" in rule.inputs
    }
    assert allowed_flows == {
        ("functions", "balancer", 50051),
        ("balancer", "servers", 50051),
        ("balancer", "servers", 9464),
    }


def test_without_nat_there_is_no_route_to_the_internet(build_stack: Any) -> None:
    private, with_nat = build_stack("default"), build_stack("nat")
    assert not private.find("NatGateway")
    assert not private.find("InternetGateway")
    assert not [each for each in private.find("Route") if "destinationCidrBlock" in each.inputs]
    assert all("cidrIpv4" not in rule.inputs for rule in private.find("SecurityGroupEgressRule"))
    assert len(with_nat.find("NatGateway")) == 1
    kinds = [each.inputs["vpcEndpointType"] for each in with_nat.find("VpcEndpoint")]
    assert kinds == ["Gateway", "Gateway"]


def test_instances_require_imds_v2(any_stack: Any) -> None:
    (template,) = any_stack.find("LaunchTemplate")
    assert template.inputs["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    assert "keyName" not in template.inputs
    (disk,) = template.inputs["blockDeviceMappings"]
    assert disk["ebs"]["encrypted"] == "true"


def test_every_log_group_has_a_retention_period(any_stack: Any) -> None:
    groups = any_stack.find("LogGroup")
    assert groups
    assert all(each.inputs["retentionInDays"] in (30, 365) for each in groups)
    group_names = {each.inputs["name"] for each in groups}
    for function in any_stack.find("Function"):
        assert f"/aws/lambda/{function.inputs['name']}" in group_names
        assert function.inputs["loggingConfig"]["logGroup"] in group_names


def test_everything_is_tagged(build_stack: Any) -> None:
    stack = build_stack("protected")
    (provider,) = [each for each in stack.resources if each.type == "pulumi:providers:aws"]
    expected_tags = {"gorggle:stack": "test", "team": "speech"}
    assert json.loads(provider.inputs["defaultTags"])["tags"] == expected_tags
    assert all(provider.urn in each.provider for each in stack.aws_resources)
    # The provider's default tags do not apply to instances and volumes that the template launches.
    (template,) = stack.find("LaunchTemplate")
    assert {each["resourceType"] for each in template.inputs["tagSpecifications"]} >= {"instance", "volume"}
    for each in template.inputs["tagSpecifications"]:
        assert expected_tags.items() <= each["tags"].items()
    (group,) = [each for each in stack.find("Group") if each.type == AUTOSCALING_GROUP_TYPE]
    assert expected_tags.items() <= {each["key"]: each["value"] for each in group.inputs["tags"]}.items()


def test_the_program_handles_no_secret_value(any_stack: Any) -> None:
    assert not any_stack.find("SecretVersion")
    for each in any_stack.aws_resources:
        assert not each.secrets, f"{each.name} holds a secret: {each.secrets}"
    (template,) = any_stack.find("LaunchTemplate")
    assert "BEGIN" not in json.dumps(template.inputs)


def test_timeouts_increase_from_function_to_state_to_execution(build_stack: Any) -> None:
    """A function times out before its state, and a state before the execution."""
    stack = build_stack("default")
    (machine,) = stack.find("StateMachine")
    definition = json.loads(machine.inputs["definition"])
    function_timeouts = {each.outputs["arn"]: each.inputs["timeout"] for each in stack.find("Function")}
    tasks = list(_find_tasks(definition))
    assert len(tasks) >= 13
    execution_timeout_s = definition["TimeoutSeconds"]
    assert execution_timeout_s <= MAX_EXECUTION_S
    for name, state in tasks:
        function = (
            state["Parameters"]["FunctionName"] if "lambda:invoke" in state["Resource"] else state["Resource"]
        )
        assert function_timeouts[function] <= state["TimeoutSeconds"] <= execution_timeout_s, name


def _find_tasks(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, state in node.get("States", {}).items():
            if state["Type"] == "Task":
                yield name, state
        for each in node.values():
            yield from _find_tasks(each)
    elif isinstance(node, list):
        for each in node:
            yield from _find_tasks(each)


def test_the_state_machine_has_no_placeholder_and_logs_no_data(any_stack: Any) -> None:
    (machine,) = any_stack.find("StateMachine")
    assert "${" not in machine.inputs["definition"]
    assert machine.inputs["loggingConfiguration"]["includeExecutionData"] is False


def test_every_alarm_notifies_or_scales_the_fleet(any_stack: Any) -> None:
    alerts = next(
        each.outputs["arn"] for each in any_stack.find("Topic") if each.inputs["name"].endswith("-alerts")
    )
    policies = {each.outputs["arn"] for each in any_stack.find("Policy") if "autoscaling" in each.type}
    for alarm in any_stack.find("MetricAlarm"):
        (action,) = alarm.inputs["alarmActions"]
        assert action == alerts or action in policies
        assert alarm.inputs["alarmDescription"]


def test_every_function_has_an_error_alarm(any_stack: Any) -> None:
    functions_with_alarm = {
        each.inputs["dimensions"]["FunctionName"]
        for each in any_stack.find("MetricAlarm")
        if each.inputs.get("metricName") == "Errors"
    }
    assert functions_with_alarm == {each.inputs["name"] for each in any_stack.find("Function")}


def test_every_documented_alarm_exists(build_stack: Any) -> None:
    names = {
        each.inputs["name"].removeprefix("gorggle-test-")
        for each in build_stack("default").find("MetricAlarm")
    }
    assert names >= {
        "throttles", "ExecutionsFailed", "ExecutionsTimedOut", "dead-upload_failures", "dead-event_failures",
        "notification-failures", "uploads-wait", "api-5xx", "api-latency", "no-healthy-host", "GpuUtilization", "GpuMemoryUtilization",
        "OutOfMemory", "ServerErrors", "CpuUtilization", "MemoryUtilization", "DiskUtilization",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "percent", "minutes"),
    [
        ("CpuUtilization", 80, 10),
        ("MemoryUtilization", 80, 10),
        ("GpuUtilization", 90, 15),
        ("GpuMemoryUtilization", 95, 5),
        ("DiskUtilization", 85, 5),
    ],
)
def test_utilization_alarms_have_the_documented_threshold_and_period(
    build_stack: Any, metric: str, percent: float, minutes: int
) -> None:
    (alarm,) = (
        each.inputs
        for each in build_stack("default").find("MetricAlarm")
        if each.inputs.get("metricName") == metric
    )
    assert (alarm["threshold"], alarm["evaluationPeriods"] * alarm["period"]) == (percent, minutes * 60)


def test_the_fleet_alarm_fires_before_jobs_time_out(build_stack: Any) -> None:
    (alarm,) = (
        each.inputs
        for each in build_stack("default").find("MetricAlarm")
        if each.inputs["name"].endswith("no-healthy-host")
    )
    # The functions publish this metric, because a load balancer without targets publishes none.
    assert (alarm["namespace"], alarm["metricName"]) == ("Gorggle/test", "FleetNotReadyChecks")
    assert alarm["dimensions"] == {"service": "gorggle"}
    assert alarm["evaluationPeriods"] * alarm["period"] < StackSettings().fleet_start_timeout_s
    # A normal start takes about six minutes and must not raise the alarm. Checks are at most a minute apart.
    assert 8 < alarm["datapointsToAlarm"] < alarm["evaluationPeriods"]


def test_every_metric_of_the_dashboard_is_published(build_stack: Any) -> None:
    """Custom metrics are published by the instance agent, the functions or a log metric filter."""
    stack = build_stack("default")
    (dashboard,) = stack.find("Dashboard")
    dashboard_metrics = {
        metric[1]
        for widget in json.loads(dashboard.inputs["dashboardBody"])["widgets"]
        for metric in widget["properties"].get("metrics", ())
        if metric[0] == "Gorggle/test" and metric[2:3] != ["service"]
    }
    page = "gorggle_grpc_request_duration_seconds_sum 1\ngorggle_grpc_request_duration_seconds_count 1\ngorggle_real_time_factor_sum 1\n"
    page += "gorggle_real_time_factor_count 1\ngorggle_gpu_utilisation_ratio 0.5\n"
    page += "".join(f'gorggle_gpu_memory_bytes{{kind="{kind}"}} 1\n' for kind in ("free", "total"))
    agent_metrics = metrics.build_metric_data(page, metrics.CpuUsage(), "fleet", metrics.RequestCounters())
    filter_metrics = {each.inputs["name"] for each in stack.find("LogMetricFilter")}
    assert dashboard_metrics == {each["MetricName"] for each in agent_metrics} | filter_metrics


def test_the_outputs_contain_names_addresses_and_costs(build_stack: Any) -> None:
    outputs = build_stack("default").outputs
    for name in ("api", "website", "uploadsBucket", "resultsBucket", "artifactsBucket", "websiteBucket"):
        assert outputs[name], name
    for name in ("jobsTable", "stateMachine", "gpuFleet", "serverAddress", "operatorToken", "alertsTopic"):
        assert outputs[name], name
    assert outputs["dashboard"].startswith("https://us-east-1.console.aws.amazon.com/cloudwatch/")
    assert outputs["idleUsdPerMonth"] > 0
    assert outputs["videoUsdPerHour"] > 0


def test_failed_events_go_to_a_dead_letter_queue(any_stack: Any) -> None:
    queues = {each.outputs["arn"]: each for each in any_stack.find("Queue")}
    uploads = next(each for each in queues.values() if each.inputs["name"].endswith("-uploads"))
    redrive = json.loads(uploads.inputs["redrivePolicy"])
    assert redrive["deadLetterTargetArn"] in queues
    assert redrive["maxReceiveCount"] == 5
    for target in any_stack.find("EventTarget"):
        assert target.inputs["deadLetterConfig"]["arn"] in queues
    for config in any_stack.find("FunctionEventInvokeConfig"):
        assert config.inputs["destinationConfig"]["onFailure"]["destination"] in queues


def test_queues_accept_messages_only_from_the_stack_s_rules(build_stack: Any) -> None:
    stack = build_stack("default")
    rules = {each.outputs["arn"] for each in stack.find("EventRule")}
    allowed_sources = set()
    for policy in stack.find("QueuePolicy"):
        for statement in parse_statements(policy.inputs["policy"]):
            if statement["Effect"] == "Allow":
                allowed_sources |= set(statement["Condition"]["ArnEquals"]["aws:SourceArn"])
    assert allowed_sources == rules


def test_the_api_allows_cors_only_from_its_website(build_stack: Any) -> None:
    (api,) = build_stack("default").find("Api")
    (origin,) = api.inputs["corsConfiguration"]["allowOrigins"]
    assert origin == "https://website-distribution-domainName"
    assert "corsConfiguration" not in build_stack("nat").find("Api")[0].inputs


def test_every_route_requires_authorization_except_public_ones(any_stack: Any) -> None:
    routes = {
        each.inputs["routeKey"]: each.inputs["authorizationType"]
        for each in any_stack.find("Route")
        if "routeKey" in each.inputs
    }
    public_routes = {route for route, kind in routes.items() if kind == "NONE"}
    assert public_routes == {"GET /health", "GET /openapi.json", "$default"}
    assert len(routes) >= 9
    (stage,) = any_stack.find("Stage")
    assert stage.inputs["defaultRouteSettings"]["throttlingBurstLimit"] == 40


def test_invoke_permissions_are_restricted_to_a_source(build_stack: Any) -> None:
    stack = build_stack("default")
    permissions = stack.find("Permission")
    assert len(permissions) > 5
    for permission in permissions:
        assert permission.inputs["sourceArn"], permission.name
        if permission.inputs["principal"] == "apigateway.amazonaws.com":
            assert not permission.inputs["sourceArn"].endswith("/*/*")


def test_the_website_is_served_only_through_cloudfront(build_stack: Any) -> None:
    stack = build_stack("default")
    (distribution,) = stack.find("Distribution")
    assert distribution.inputs["defaultCacheBehavior"]["viewerProtocolPolicy"] == "redirect-to-https"
    (headers,) = stack.find("ResponseHeadersPolicy")
    policy = headers.inputs["securityHeadersConfig"]["contentSecurityPolicy"]["contentSecurityPolicy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    site = next(each for each in stack.find("BucketPolicy") if "website" in each.inputs["bucket"])
    reader = parse_statements(site.inputs["policy"])[1]
    assert reader["Condition"] == {"StringEquals": {"AWS:SourceArn": distribution.outputs["arn"]}}
    assert reader["Action"] == "s3:GetObject"


def test_buckets_allow_cors_only_from_the_website(build_stack: Any) -> None:
    stack = build_stack("default")
    allowed_methods = {}
    for each in stack.find("BucketCorsConfiguration"):
        role = next(role for role in ("uploads", "results") if role in each.inputs["bucket"])
        for rule in each.inputs["corsRules"]:
            assert rule["allowedOrigins"] == ["https://website-distribution-domainName"]
            allowed_methods[role, rule["id"]] = set(rule["allowedMethods"])
    assert allowed_methods == {
        ("uploads", "send"): {"POST"},
        ("uploads", "read"): {"GET", "HEAD"},
        ("results", "read"): {"GET", "HEAD"},
    }
    assert not build_stack("nat").find("BucketCorsConfiguration"), "a stack without a website needs no CORS"


def test_get_video_url_may_read_only_uploads(build_stack: Any) -> None:
    stack = build_stack("default")
    uploads = {
        each.outputs["arn"] for each in stack.find("Bucket") if "uploads" in str(each.inputs.get("bucket"))
    }
    (policy,) = (each for each in stack.find("RolePolicy") if "get_video_url" in each.name)
    (statement,) = (
        each for each in parse_statements(policy.inputs["policy"]) if "s3:" in json.dumps(each["Action"])
    )
    assert set(statement["Action"]) == {"s3:GetObject", "s3:GetObjectVersion"}
    assert {
        *([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    } == {f"{arn}/uploads/*" for arn in uploads}


def test_website_assets_are_cached_and_pages_are_not(build_stack: Any) -> None:
    stack = build_stack("default")
    objects = {
        each.inputs["key"]: each.inputs
        for each in stack.find("BucketObjectv2")
        if "website" in each.inputs["bucket"]
    }
    assert {"index.html", "config.json"} <= set(objects)
    for key, website_object in objects.items():
        expected = "immutable" if key.startswith("assets/") else "no-cache"
        assert expected in website_object["cacheControl"], key
    assert objects["index.html"]["contentType"] == "text/html; charset=utf-8"
    config = json.loads(objects["config.json"]["content"])
    assert config["auth"] == "token"
    assert config["max_upload_bytes"] == 5 * 2**30
    (api,) = stack.find("Api")
    assert config["api"] == api.outputs["apiEndpoint"]


def test_function_metrics_have_the_stack_s_namespace_and_published_names(build_stack: Any) -> None:
    stack = build_stack("default")
    names = {
        each.inputs["environment"]["variables"].get("POWERTOOLS_METRICS_NAMESPACE")
        for each in stack.find("Function")
    }
    assert names - {None} == {"Gorggle/test"}
    (alarm,) = (
        each for each in stack.find("MetricAlarm") if each.inputs["name"].endswith("notification-failures")
    )
    assert (alarm.inputs["namespace"], alarm.inputs["metricName"]) == (
        "Gorggle/test",
        "NotificationFailures",
    )
    assert alarm.inputs["dimensions"] == {"service": "gorggle"}
    source = "".join(
        path.read_text() for path in (Path(__file__).resolve().parents[2] / "lambdas").rglob("*.py")
    )
    (dashboard,) = stack.find("Dashboard")
    dashboard_metrics = [
        metric[1]
        for widget in json.loads(dashboard.inputs["dashboardBody"])["widgets"]
        for metric in widget["properties"].get("metrics", ())
        if metric[2:] == ["service", "gorggle"]
    ]
    assert len(dashboard_metrics) == 7
    for name in dashboard_metrics:
        assert f'"{name}"' in source or name in ("FailedLips", "FailedAudio", "FailedFaces"), name


def test_the_cost_model_counts_the_stack_s_resources(build_stack: Any) -> None:
    stack, model = build_stack("default"), cost_model.StackConfig()
    alarm_metric_count = 0
    for alarm in stack.find("MetricAlarm"):
        queries = alarm.inputs.get("metricQueries")
        alarm_metric_count += sum("metric" in each for each in queries) if queries else 1
    # Tolerance of 0.50 USD: adding a function does not require a new estimate.
    assert model.alarm_metrics == pytest.approx(alarm_metric_count, abs=5)
    interfaces = [each for each in stack.find("VpcEndpoint") if each.inputs["vpcEndpointType"] == "Interface"]
    assert model.endpoints * model.endpoint_zone_count == len(interfaces)
    assert model.secrets == len(stack.find("Secret"))


def test_sign_in_redirects_to_the_user_pool_and_back(build_stack: Any) -> None:
    stack = build_stack("cognito")
    (config,) = (each for each in stack.find("BucketObjectv2") if each.inputs["key"] == "config.json")
    website_config = json.loads(config.inputs["content"])
    (domain,) = stack.find("UserPoolDomain")
    assert website_config["sign_in"] == f"https://{domain.inputs['domain']}.auth.us-east-1.amazoncognito.com"
    assert website_config["client_id"]
    (headers,) = stack.find("ResponseHeadersPolicy")
    policy = headers.inputs["securityHeadersConfig"]["contentSecurityPolicy"]["contentSecurityPolicy"]
    assert f" {website_config['sign_in']};" in policy
    (client,) = stack.find("UserPoolClient")
    assert client.inputs["callbackUrls"] == ["https://website-distribution-domainName/"]
    assert "amazoncognito" not in str(build_stack("default").find("ResponseHeadersPolicy")[0].inputs)
