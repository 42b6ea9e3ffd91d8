"""What must hold of every resource in every supported stack: encryption, privacy, least privilege, limits, tags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gorggle_lambdas.aws_costs import cost_model
from infrastructure.config import StackSettings
from infrastructure.instance_agent import metrics

# Each stack takes seconds to build, and minutes on a busy machine.
pytestmark = pytest.mark.timeout(1200)

MAX_EXECUTION_S = 365 * 24 * 3600
# Every statement on all resources: role, and the actions that AWS offers nothing narrower for.
WILDCARDS = {
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
# Resources that AWS does not tag, or that are parts of one that is.
UNTAGGED_GROUP = "aws:autoscaling/group:Group"


def statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


def allowed(stack: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for policy in stack.find("RolePolicy"):
        for statement in statements(policy.inputs["policy"]):
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
        first, *others = statements(policy.inputs["policy"])
        assert first["Effect"] == "Deny"
        assert first["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert first["Resource"] == [f"arn:aws:s3:::{policy.inputs['bucket']}{end}" for end in ("", "/*")]
        assert all(
            each["Principal"] == {"Service": "cloudfront.amazonaws.com"} and each["Condition"]
            for each in others
        )


def test_people_s_data_lies_under_the_stack_s_own_key(any_stack: Any) -> None:
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


def test_what_people_upload_is_deleted_in_time(built: Any) -> None:
    stack = built("default")
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


def test_no_role_may_do_more_than_is_listed(any_stack: Any) -> None:
    for role, statement in allowed(any_stack):
        assert not any("*" in action for action in statement["Action"]), role
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= WILDCARDS, f"{role}: {statement['Action']}"
        assert all(resource for resource in statement["Resource"])


def test_a_wildcard_cannot_be_written_without_a_reason() -> None:
    from infrastructure.iam import Grant

    with pytest.raises(ValueError, match="needs a reason"):
        Grant(("s3:GetObject",), ["*"])


def test_every_function_has_a_role_of_its_own(any_stack: Any) -> None:
    functions = any_stack.find("Function")
    roles = [each.inputs["role"] for each in functions]
    assert len(set(roles)) == len(functions) >= 20
    named = {each.inputs["role"]: each.inputs for each in any_stack.find("RolePolicy")}
    assert {arn.rpartition("/")[2] for arn in roles} <= set(named)


def test_roles_are_taken_by_one_service_each_and_only_for_this_account(any_stack: Any) -> None:
    for role in any_stack.find("Role"):
        (statement,) = statements(role.inputs["assumeRolePolicy"])
        service = statement["Principal"]["Service"]
        assert isinstance(service, str)
        if service not in ("lambda.amazonaws.com", "ec2.amazonaws.com"):
            assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}, (
                role.name
            )


def test_no_address_of_the_internet_may_come_in(any_stack: Any) -> None:
    for rule in any_stack.find("SecurityGroupIngressRule"):
        assert rule.inputs.get("cidrIpv4") in (None, "10.71.0.0/16"), rule.name
        assert rule.inputs["fromPort"] == rule.inputs["toPort"] in (443, 9464, 50051)
    for subnet in any_stack.find("Subnet"):
        assert subnet.inputs["mapPublicIpOnLaunch"] is False
    for balancer in any_stack.find("LoadBalancer"):
        assert balancer.inputs["internal"] is True


def test_between_functions_and_server_one_port_is_open(built: Any) -> None:
    stack = built("default")
    groups = {
        each.id: each.name.removeprefix("gpu-").removesuffix("-group") for each in stack.find("SecurityGroup")
    }
    ways = {
        (
            groups[rule.inputs["referencedSecurityGroupId"]],
            groups[rule.inputs["securityGroupId"]],
            rule.inputs["toPort"],
        )
        for rule in stack.find("SecurityGroupIngressRule")
        if "referencedSecurityGroupId" in rule.inputs
    }
    assert ways == {
        ("functions", "balancer", 50051),
        ("balancer", "servers", 50051),
        ("balancer", "servers", 9464),
    }


def test_without_nat_nothing_can_reach_the_internet(built: Any) -> None:
    closed, open_ = built("default"), built("nat")
    assert not closed.find("NatGateway")
    assert not closed.find("InternetGateway")
    assert not [each for each in closed.find("Route") if "destinationCidrBlock" in each.inputs]
    assert all("cidrIpv4" not in rule.inputs for rule in closed.find("SecurityGroupEgressRule"))
    assert len(open_.find("NatGateway")) == 1
    kinds = [each.inputs["vpcEndpointType"] for each in open_.find("VpcEndpoint")]
    assert kinds == ["Gateway", "Gateway"]


def test_instances_are_asked_for_metadata_with_tokens_alone(any_stack: Any) -> None:
    (template,) = any_stack.find("LaunchTemplate")
    assert template.inputs["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    assert "keyName" not in template.inputs
    (disk,) = template.inputs["blockDeviceMappings"]
    assert disk["ebs"]["encrypted"] == "true"


def test_every_log_group_has_an_end(any_stack: Any) -> None:
    groups = any_stack.find("LogGroup")
    assert groups
    assert all(each.inputs["retentionInDays"] in (30, 365) for each in groups)
    named = {each.inputs["name"] for each in groups}
    for function in any_stack.find("Function"):
        assert f"/aws/lambda/{function.inputs['name']}" in named
        assert function.inputs["loggingConfig"]["logGroup"] in named


def test_everything_is_tagged(built: Any) -> None:
    stack = built("protected")
    (provider,) = [each for each in stack.resources if each.type == "pulumi:providers:aws"]
    wanted = {"gorggle:stack": "test", "team": "speech"}
    assert json.loads(provider.inputs["defaultTags"])["tags"] == wanted
    assert all(provider.urn in each.provider for each in stack.aws_resources)
    # What these launch is not made by the provider, so its default tags do not reach it.
    (template,) = stack.find("LaunchTemplate")
    assert {each["resourceType"] for each in template.inputs["tagSpecifications"]} >= {"instance", "volume"}
    for each in template.inputs["tagSpecifications"]:
        assert wanted.items() <= each["tags"].items()
    (group,) = [each for each in stack.find("Group") if each.type == UNTAGGED_GROUP]
    assert wanted.items() <= {each["key"]: each["value"] for each in group.inputs["tags"]}.items()


def test_nothing_secret_is_in_the_program_s_hands(any_stack: Any) -> None:
    assert not any_stack.find("SecretVersion")
    for each in any_stack.aws_resources:
        assert not each.secrets, f"{each.name} holds a secret: {each.secrets}"
    (template,) = any_stack.find("LaunchTemplate")
    assert "BEGIN" not in json.dumps(template.inputs)


def test_time_limits_hold_one_another(built: Any) -> None:
    """A function ends before its state, and its state before the execution."""
    stack = built("default")
    (machine,) = stack.find("StateMachine")
    definition = json.loads(machine.inputs["definition"])
    limits = {each.outputs["arn"]: each.inputs["timeout"] for each in stack.find("Function")}
    tasks = list(_tasks(definition))
    assert len(tasks) >= 13
    whole = definition["TimeoutSeconds"]
    assert whole <= MAX_EXECUTION_S
    for name, state in tasks:
        called = (
            state["Parameters"]["FunctionName"] if "lambda:invoke" in state["Resource"] else state["Resource"]
        )
        assert limits[called] <= state["TimeoutSeconds"] <= whole, name


def _tasks(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, state in node.get("States", {}).items():
            if state["Type"] == "Task":
                yield name, state
        for each in node.values():
            yield from _tasks(each)
    elif isinstance(node, list):
        for each in node:
            yield from _tasks(each)


def test_no_placeholder_is_left_in_the_state_machine(any_stack: Any) -> None:
    (machine,) = any_stack.find("StateMachine")
    assert "${" not in machine.inputs["definition"]
    assert machine.inputs["loggingConfiguration"]["includeExecutionData"] is False


def test_every_alarm_tells_somebody_or_moves_the_fleet(any_stack: Any) -> None:
    alerts = next(
        each.outputs["arn"] for each in any_stack.find("Topic") if each.inputs["name"].endswith("-alerts")
    )
    policies = {each.outputs["arn"] for each in any_stack.find("Policy") if "autoscaling" in each.type}
    for alarm in any_stack.find("MetricAlarm"):
        (action,) = alarm.inputs["alarmActions"]
        assert action == alerts or action in policies
        assert alarm.inputs["alarmDescription"]


def test_every_function_s_errors_are_watched(any_stack: Any) -> None:
    watched = {
        each.inputs["dimensions"]["FunctionName"]
        for each in any_stack.find("MetricAlarm")
        if each.inputs.get("metricName") == "Errors"
    }
    assert watched == {each.inputs["name"] for each in any_stack.find("Function")}


def test_the_guides_alarms_are_all_there(built: Any) -> None:
    names = {
        each.inputs["name"].removeprefix("gorggle-test-") for each in built("default").find("MetricAlarm")
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
def test_what_an_instance_uses_up_is_told_of_in_time(
    built: Any, metric: str, percent: float, minutes: int
) -> None:
    (alarm,) = (
        each.inputs
        for each in built("default").find("MetricAlarm")
        if each.inputs.get("metricName") == metric
    )
    assert (alarm["threshold"], alarm["evaluationPeriods"] * alarm["period"]) == (percent, minutes * 60)


def test_a_fleet_that_does_not_come_is_told_of_before_jobs_give_up(built: Any) -> None:
    (alarm,) = (
        each.inputs
        for each in built("default").find("MetricAlarm")
        if each.inputs["name"].endswith("no-healthy-host")
    )
    # By what the functions find: a balancer without targets tells nothing.
    assert (alarm["namespace"], alarm["metricName"]) == ("Gorggle/test", "FleetNotReadyChecks")
    assert alarm["dimensions"] == {"service": "gorggle"}
    assert alarm["evaluationPeriods"] * alarm["period"] < StackSettings().fleet_start_timeout_s
    # A start takes about six minutes: that alone is no alarm. Looks come at most a minute apart.
    assert 8 < alarm["datapointsToAlarm"] < alarm["evaluationPeriods"]


def test_every_metric_of_the_dashboard_is_one_that_somebody_gives(built: Any) -> None:
    """Of this stack's own: what the agent measures, the functions count, and the log's filters make."""
    stack = built("default")
    (dashboard,) = stack.find("Dashboard")
    shown = {
        metric[1]
        for widget in json.loads(dashboard.inputs["dashboardBody"])["widgets"]
        for metric in widget["properties"].get("metrics", ())
        if metric[0] == "Gorggle/test" and metric[2:3] != ["service"]
    }
    page = "gorggle_grpc_request_duration_seconds_sum 1\ngorggle_grpc_request_duration_seconds_count 1\ngorggle_real_time_factor_sum 1\n"
    page += "gorggle_real_time_factor_count 1\ngorggle_gpu_utilisation_ratio 0.5\n"
    page += "".join(f'gorggle_gpu_memory_bytes{{kind="{kind}"}} 1\n' for kind in ("free", "total"))
    given = metrics.build_metric_data(page, metrics.CpuUsage(), "fleet", metrics.RequestCounters())
    filtered = {each.inputs["name"] for each in stack.find("LogMetricFilter")}
    assert shown == {each["MetricName"] for each in given} | filtered


def test_the_outputs_say_where_everything_is(built: Any) -> None:
    outputs = built("default").outputs
    for name in ("api", "website", "uploadsBucket", "resultsBucket", "artifactsBucket", "websiteBucket"):
        assert outputs[name], name
    for name in ("jobsTable", "stateMachine", "gpuFleet", "serverAddress", "operatorToken", "alertsTopic"):
        assert outputs[name], name
    assert outputs["dashboard"].startswith("https://us-east-1.console.aws.amazon.com/cloudwatch/")
    assert outputs["idleUsdPerMonth"] > 0
    assert outputs["videoUsdPerHour"] > 0


def test_every_failure_ends_somewhere(any_stack: Any) -> None:
    queues = {each.outputs["arn"]: each for each in any_stack.find("Queue")}
    uploads = next(each for each in queues.values() if each.inputs["name"].endswith("-uploads"))
    redrive = json.loads(uploads.inputs["redrivePolicy"])
    assert redrive["deadLetterTargetArn"] in queues
    assert redrive["maxReceiveCount"] == 5
    for target in any_stack.find("EventTarget"):
        assert target.inputs["deadLetterConfig"]["arn"] in queues
    for config in any_stack.find("FunctionEventInvokeConfig"):
        assert config.inputs["destinationConfig"]["onFailure"]["destination"] in queues


def test_queues_take_messages_from_their_own_rules_only(built: Any) -> None:
    stack = built("default")
    rules = {each.outputs["arn"] for each in stack.find("EventRule")}
    taken = set()
    for policy in stack.find("QueuePolicy"):
        for statement in statements(policy.inputs["policy"]):
            if statement["Effect"] == "Allow":
                taken |= set(statement["Condition"]["ArnEquals"]["aws:SourceArn"])
    assert taken == rules


def test_the_api_lets_only_its_own_site_s_pages_call(built: Any) -> None:
    (api,) = built("default").find("Api")
    (origin,) = api.inputs["corsConfiguration"]["allowOrigins"]
    assert origin == "https://website-distribution-domainName"
    assert "corsConfiguration" not in built("nat").find("Api")[0].inputs


def test_every_route_but_the_open_ones_asks_who_calls(any_stack: Any) -> None:
    routes = {
        each.inputs["routeKey"]: each.inputs["authorizationType"]
        for each in any_stack.find("Route")
        if "routeKey" in each.inputs
    }
    unguarded = {route for route, kind in routes.items() if kind == "NONE"}
    assert unguarded == {"GET /health", "GET /openapi.json", "$default"}
    assert len(routes) >= 9
    (stage,) = any_stack.find("Stage")
    assert stage.inputs["defaultRouteSettings"]["throttlingBurstLimit"] == 40


def test_functions_are_called_by_what_the_manifest_says_and_by_nothing_else(built: Any) -> None:
    stack = built("default")
    for permission in stack.find("Permission"):
        assert permission.inputs["sourceArn"], permission.name
        if permission.inputs["principal"] == "apigateway.amazonaws.com":
            assert not permission.inputs["sourceArn"].endswith("/*/*")


def test_the_site_is_read_through_cloudfront_alone(built: Any) -> None:
    stack = built("default")
    (distribution,) = stack.find("Distribution")
    assert distribution.inputs["defaultCacheBehavior"]["viewerProtocolPolicy"] == "redirect-to-https"
    (headers,) = stack.find("ResponseHeadersPolicy")
    policy = headers.inputs["securityHeadersConfig"]["contentSecurityPolicy"]["contentSecurityPolicy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    site = next(each for each in stack.find("BucketPolicy") if "website" in each.inputs["bucket"])
    reader = statements(site.inputs["policy"])[1]
    assert reader["Condition"] == {"StringEquals": {"AWS:SourceArn": distribution.outputs["arn"]}}
    assert reader["Action"] == "s3:GetObject"


def test_buckets_answer_pages_of_the_site_and_no_others(built: Any) -> None:
    stack = built("default")
    found = {}
    for each in stack.find("BucketCorsConfiguration"):
        role = next(role for role in ("uploads", "results") if role in each.inputs["bucket"])
        for rule in each.inputs["corsRules"]:
            assert rule["allowedOrigins"] == ["https://website-distribution-domainName"]
            found[role, rule["id"]] = set(rule["allowedMethods"])
    assert found == {
        ("uploads", "send"): {"POST"},
        ("uploads", "read"): {"GET", "HEAD"},
        ("results", "read"): {"GET", "HEAD"},
    }
    assert not built("nat").find("BucketCorsConfiguration"), "without a site no page calls"


def test_whoever_gives_a_video_s_address_may_read_videos_and_nothing_else_of_s3(built: Any) -> None:
    stack = built("default")
    uploads = {
        each.outputs["arn"] for each in stack.find("Bucket") if "uploads" in str(each.inputs.get("bucket"))
    }
    (policy,) = (each for each in stack.find("RolePolicy") if "get_video_url" in each.name)
    (statement,) = (
        each for each in statements(policy.inputs["policy"]) if "s3:" in json.dumps(each["Action"])
    )
    assert set(statement["Action"]) == {"s3:GetObject", "s3:GetObjectVersion"}
    assert {
        *([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    } == {f"{arn}/uploads/*" for arn in uploads}


def test_a_new_page_is_seen_at_once_and_its_parts_are_kept(built: Any) -> None:
    stack = built("default")
    objects = {
        each.inputs["key"]: each.inputs
        for each in stack.find("BucketObjectv2")
        if "website" in each.inputs["bucket"]
    }
    assert {"index.html", "config.json"} <= set(objects)
    for key, found in objects.items():
        expected = "immutable" if key.startswith("assets/") else "no-cache"
        assert expected in found["cacheControl"], key
    assert objects["index.html"]["contentType"] == "text/html; charset=utf-8"
    known = json.loads(objects["config.json"]["content"])
    assert known["auth"] == "token"
    assert known["max_upload_bytes"] == 5 * 2**30
    assert known["api"].startswith("https://") or known["api"]


def test_what_functions_measure_is_kept_apart_by_stack_and_watched_by_its_names(built: Any) -> None:
    stack = built("default")
    names = {
        each.inputs["environment"]["variables"].get("POWERTOOLS_METRICS_NAMESPACE")
        for each in stack.find("Function")
    }
    assert names - {None} == {"Gorggle/test"}
    (untold,) = (
        each for each in stack.find("MetricAlarm") if each.inputs["name"].endswith("notification-failures")
    )
    assert (untold.inputs["namespace"], untold.inputs["metricName"]) == (
        "Gorggle/test",
        "NotificationFailures",
    )
    assert untold.inputs["dimensions"] == {"service": "gorggle"}
    counted = "".join(
        path.read_text() for path in (Path(__file__).resolve().parents[2] / "lambdas").rglob("*.py")
    )
    (dashboard,) = stack.find("Dashboard")
    shown = [
        metric[1]
        for widget in json.loads(dashboard.inputs["dashboardBody"])["widgets"]
        for metric in widget["properties"].get("metrics", ())
        if metric[2:] == ["service", "gorggle"]
    ]
    assert len(shown) == 7
    for name in shown:
        assert f'"{name}"' in counted or name in ("FailedLips", "FailedAudio", "FailedFaces"), name


def test_the_cost_model_counts_what_the_stack_has(built: Any) -> None:
    stack, model = built("default"), cost_model.StackConfig()
    looked_at = 0
    for alarm in stack.find("MetricAlarm"):
        queries = alarm.inputs.get("metricQueries")
        looked_at += sum("metric" in each for each in queries) if queries else 1
    # Half a dollar: a function more or less is no new price.
    assert model.alarm_metrics == pytest.approx(looked_at, abs=5)
    interfaces = [each for each in stack.find("VpcEndpoint") if each.inputs["vpcEndpointType"] == "Interface"]
    assert model.endpoints * model.endpoint_zone_count == len(interfaces)
    assert model.secrets == len(stack.find("Secret"))


def test_people_of_the_user_pool_are_sent_to_its_pages_and_back(built: Any) -> None:
    stack = built("cognito")
    (config,) = (each for each in stack.find("BucketObjectv2") if each.inputs["key"] == "config.json")
    known = json.loads(config.inputs["content"])
    (domain,) = stack.find("UserPoolDomain")
    assert known["sign_in"] == f"https://{domain.inputs['domain']}.auth.us-east-1.amazoncognito.com"
    assert known["client_id"]
    (headers,) = stack.find("ResponseHeadersPolicy")
    policy = headers.inputs["securityHeadersConfig"]["contentSecurityPolicy"]["contentSecurityPolicy"]
    assert f" {known['sign_in']};" in policy
    (client,) = stack.find("UserPoolClient")
    assert client.inputs["callbackUrls"] == ["https://website-distribution-domainName/"]
    assert "amazoncognito" not in str(built("default").find("ResponseHeadersPolicy")[0].inputs)
