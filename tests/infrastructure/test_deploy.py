"""Deploys the whole stack to moto and checks the resulting resources."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from moto.core.config import default_user_config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from infrastructure import quota_check
from infrastructure.config import GPU_AMI_PARAMETER
from tests.infrastructure.moto_deploy import api_validation, deploy

# A deployment makes about five hundred calls to moto.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.0.1:50051"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    # Without Docker, moto's functions return their event.
    before = default_user_config["lambda"]["use_docker"]
    default_user_config["lambda"]["use_docker"] = False
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    default_user_config["lambda"]["use_docker"] = before


@pytest.fixture(scope="module")
def deployment(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("packages")

    def package(name: str) -> str:
        path = folder / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("name", name)
        return str(path)

    packages = folder / "packages.json"
    packages.write_text(
        json.dumps(
            {
                "code": {each: package(each) for each in ("thin", "full", "operations")},
                "layers": {each: package(each) for each in ("base", "media", "certificates")},
                "server": package("server"),
            }
        )
    )
    command = [
        sys.executable,
        "-m",
        "tests.infrastructure.moto_deploy.deploy",
        "--endpoint",
        endpoint,
        "--packages",
        str(packages),
    ]
    command += ["--variables", json.dumps({"SERVER_ADDRESS": ADDRESS})]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr[-3000:]
    result: dict[str, Any] = json.loads(completed.stdout)
    return result


def client(endpoint: str, service: str) -> Any:
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip


def test_only_operations_that_moto_lacks_are_skipped(deployment: dict[str, Any]) -> None:
    assert set(deployment["skipped_operations"]) == deploy.UNSUPPORTED_BY_MOTO
    assert len(deployment["resources"]) > 300
    assert all(each["id"] for each in deployment["resources"])


def test_resources_in_environment_variables_exist(deployment: dict[str, Any], endpoint: str) -> None:
    """Each table, bucket, topic, secret, fleet and state machine in a function's variables can be described."""
    describe = {
        "TABLE": lambda name: client(endpoint, "dynamodb").describe_table(TableName=name)["Table"],
        "BUCKET": lambda name: client(endpoint, "s3").get_bucket_encryption(Bucket=name),
        "TOPIC": lambda name: client(endpoint, "sns").get_topic_attributes(TopicArn=name),
        "SECRET": lambda name: client(endpoint, "secretsmanager").describe_secret(SecretId=name),
        "FLEET": lambda name: client(endpoint, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0],
        "STATE_MACHINE_ARN": lambda name: client(endpoint, "stepfunctions").describe_state_machine(stateMachineArn=name),
    }  # fmt: skip
    seen = set()
    for function in client(endpoint, "lambda").list_functions()["Functions"]:
        variables = function["Environment"]["Variables"]
        for name, value in variables.items():
            kind = name if name in describe else name.rpartition("_")[2]
            if kind in describe:
                assert describe[kind](value), (function["FunctionName"], name)
                seen.add(kind)
    assert seen == set(describe)


def test_functions_get_the_address_of_the_server(deployment: dict[str, Any], endpoint: str) -> None:
    configuration = client(endpoint, "lambda").get_function_configuration(
        FunctionName="gorggle-local-read_lips"
    )
    assert configuration["Environment"]["Variables"]["SERVER_ADDRESS"] == ADDRESS
    assert len(configuration["Layers"]) == 2
    assert configuration["VpcConfig"]["SubnetIds"]


def test_the_state_machine_calls_existing_functions(deployment: dict[str, Any], endpoint: str) -> None:
    arn = deployment["outputs"]["stateMachine"]
    definition = client(endpoint, "stepfunctions").describe_state_machine(stateMachineArn=arn)["definition"]
    functions = {each["FunctionArn"] for each in client(endpoint, "lambda").list_functions()["Functions"]}
    called = {each for each in functions if each in definition}
    assert len(called) >= 13


def test_every_function_and_the_state_machine_are_active(deployment: dict[str, Any], endpoint: str) -> None:
    caller = client(endpoint, "lambda")
    names = [each["FunctionName"] for each in caller.list_functions()["Functions"]]
    states = {caller.get_function(FunctionName=name)["Configuration"]["State"] for name in names}
    assert states == {"Active"}
    machine = client(endpoint, "stepfunctions").describe_state_machine(
        stateMachineArn=deployment["outputs"]["stateMachine"]
    )
    assert machine["status"] == "ACTIVE"


def test_upload_events_reach_the_queue(deployment: dict[str, Any], endpoint: str) -> None:
    events = client(endpoint, "events")
    pattern = json.loads(events.describe_rule(Name="gorggle-local-uploaded")["EventPattern"])
    assert pattern["detail"]["bucket"]["name"] == [deployment["outputs"]["uploadsBucket"]]
    (target,) = events.list_targets_by_rule(Rule="gorggle-local-uploaded")["Targets"]
    sqs = client(endpoint, "sqs")
    url = sqs.get_queue_url(QueueName="gorggle-local-uploads")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["QueueArn"] == target["Arn"]
    (source,) = client(endpoint, "lambda").list_event_source_mappings()["EventSourceMappings"]
    assert source["EventSourceArn"] == target["Arn"]


def test_the_fleet_starts_at_zero_and_has_scaling_policies(deployment: dict[str, Any], endpoint: str) -> None:
    scaling = client(endpoint, "autoscaling")
    (group,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, 2, 0)
    hooks = scaling.describe_lifecycle_hooks(AutoScalingGroupName=group["AutoScalingGroupName"])[
        "LifecycleHooks"
    ]
    assert {each["LifecycleHookName"] for each in hooks} == {"ready", "drain"}
    policies = {each["PolicyName"] for each in scaling.describe_policies()["ScalingPolicies"]}
    assert policies == {"grow", "shrink", "sleep"}
    (target,) = client(endpoint, "elbv2").describe_target_groups()["TargetGroups"]
    assert group["TargetGroupARNs"] == [target["TargetGroupArn"]]
    assert (target["HealthCheckPath"], target["HealthCheckPort"]) == ("/readyz", "9464")


def test_every_route_reaches_a_function(deployment: dict[str, Any], endpoint: str) -> None:
    gateway = client(endpoint, "apigatewayv2")
    (api,) = gateway.get_apis()["Items"]
    integrations = {
        each["IntegrationId"]: each for each in gateway.get_integrations(ApiId=api["ApiId"])["Items"]
    }
    routes = gateway.get_routes(ApiId=api["ApiId"])["Items"]
    assert len(routes) >= 9
    for route in routes:
        assert "function:gorggle-local-" in integrations[route["Target"].partition("/")[2]]["IntegrationUri"]


def test_the_default_security_group_has_no_rules(deployment: dict[str, Any], endpoint: str) -> None:
    ec2 = client(endpoint, "ec2")
    (network,) = [each for each in ec2.describe_vpcs()["Vpcs"] if each["CidrBlock"] == "10.71.0.0/16"]
    filters = [{"Name": "vpc-id", "Values": [network["VpcId"]]}]
    groups = {
        each["GroupName"]: each for each in ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    }
    assert not groups["default"]["IpPermissions"]
    assert not groups["default"]["IpPermissionsEgress"]
    for name, group in groups.items():
        assert not [
            each for each in group["IpPermissions"] if each["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
        ], name


def test_a_resource_without_a_handler_fails_the_deployment(endpoint: str) -> None:
    from tests.infrastructure.moto_deploy.pulumi_engine import Resource

    resource = Resource("aws:braket/job:Job", "job", "urn", "", "", {}, [], [])
    with pytest.raises(deploy.ApplyError, match="no handler"):
        deploy.LocalAccount(endpoint).create_resource(resource)


# Limitations of moto 5.2.5: each test fails when moto fixes one, and its workaround can then be removed.


@pytest.mark.parametrize("operation", sorted(deploy.UNSUPPORTED_BY_MOTO))
def test_moto_still_lacks_an_operation(operation: str, endpoint: str) -> None:
    service, _, method = operation.partition(".")
    shape = api_validation.operation(operation).input_shape
    caller = client(endpoint, service)
    name = next(
        each for each, operation_name in caller.meta.method_to_api_mapping.items() if operation_name == method
    )
    with pytest.raises(ClientError) as raised:
        getattr(caller, name)(**api_validation.sample_output(shape))
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 500, 501)


def test_moto_still_ignores_a_bucket_policy_s_conditions(endpoint: str) -> None:
    s3 = client(endpoint, "s3")
    s3.create_bucket(Bucket="conditions")
    deny = {
        "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::conditions/*",
        "Condition": {"StringEquals": {"aws:PrincipalAccount": "000000000000"}},
    }  # fmt: skip
    s3.put_bucket_policy(
        Bucket="conditions", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    with pytest.raises(ClientError, match="403"):
        s3.put_object(Bucket="conditions", Key="a", Body=b"a")


def test_moto_still_ignores_lifecycle_hooks_of_new_groups(deployment: dict[str, Any], endpoint: str) -> None:
    scaling = client(endpoint, "autoscaling")
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["gorggle-local-gpu"])[
        "AutoScalingGroups"
    ]
    template = group["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
    hook = {"LifecycleHookName": "ready", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"}
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="hooked",
        MinSize=0,
        MaxSize=0,
        VPCZoneIdentifier=group["VPCZoneIdentifier"],
        LaunchTemplate={name: template[name] for name in ("LaunchTemplateId", "Version")},
        LifecycleHookSpecificationList=[hook],
    )
    assert not scaling.describe_lifecycle_hooks(AutoScalingGroupName="hooked")["LifecycleHooks"]
    scaling.delete_auto_scaling_group(AutoScalingGroupName="hooked")


def test_moto_still_fails_on_the_first_rotation_of_an_empty_secret(
    deployment: dict[str, Any], endpoint: str
) -> None:
    secrets = client(endpoint, "secretsmanager")
    secret = secrets.create_secret(Name="empty")["ARN"]
    (function,) = [
        each["FunctionArn"]
        for each in client(endpoint, "lambda").list_functions()["Functions"]
        if each["FunctionName"].endswith("rotate_token")
    ]
    with pytest.raises(ClientError) as raised:
        secrets.rotate_secret(
            SecretId=secret, RotationLambdaARN=function, RotationRules={"AutomaticallyAfterDays": 30}
        )
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_moto_still_returns_no_arn_of_a_scaling_policy(deployment: dict[str, Any], endpoint: str) -> None:
    response = client(endpoint, "autoscaling").put_scaling_policy(
        AutoScalingGroupName="gorggle-local-gpu",
        PolicyName="another",
        PolicyType="StepScaling",
        AdjustmentType="ChangeInCapacity",
        StepAdjustments=[{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    )
    assert "PolicyARN" not in response
    client(endpoint, "autoscaling").delete_policy(
        AutoScalingGroupName="gorggle-local-gpu", PolicyName="another"
    )


def test_moto_still_lacks_the_ami_parameter(endpoint: str) -> None:
    with pytest.raises(ClientError, match="ParameterNotFound"):
        client(endpoint, "ssm").get_parameter(Name=GPU_AMI_PARAMETER)


def test_moto_still_lacks_quotas_of_gpu_instances(endpoint: str) -> None:
    for _, code in (quota_check.ON_DEMAND, quota_check.SPOT):
        with pytest.raises(ClientError, match="NoSuchResource"):
            client(endpoint, "service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)


def test_moto_still_does_not_serve_http_apis(deployment: dict[str, Any], endpoint: str) -> None:
    """``gorggle_local.aws.api_gateway`` serves them instead."""
    host = deployment["outputs"]["api"].removeprefix("https://")
    response = requests.get(f"{endpoint}/health", headers={"host": host}, timeout=30)
    assert response.status_code == 404


def test_moto_still_cannot_redrive_dead_letters(deployment: dict[str, Any], endpoint: str) -> None:
    """Therefore the pipeline test moves the messages itself."""
    arns = [
        f"arn:aws:sqs:us-east-1:123456789012:gorggle-local-{each}" for each in ("upload_failures", "uploads")
    ]
    with pytest.raises(ClientError) as raised:
        client(endpoint, "sqs").start_message_move_task(SourceArn=arns[0], DestinationArn=arns[1])
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 500, 501)


def test_failed_uploads_are_in_a_queue_that_sqs_can_redrive(
    deployment: dict[str, Any], endpoint: str
) -> None:
    """SQS redrives only dead-letter queues of a queue, so the rule must use the same one."""
    sqs, events = client(endpoint, "sqs"), client(endpoint, "events")
    url = sqs.get_queue_url(QueueName="gorggle-local-upload_failures")["QueueUrl"]
    sources = sqs.list_dead_letter_source_queues(QueueUrl=url)["queueUrls"]
    assert [each.rpartition("/")[2] for each in sources] == ["gorggle-local-uploads"]
    (target,) = events.list_targets_by_rule(Rule="gorggle-local-uploaded")["Targets"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    assert target["DeadLetterConfig"]["Arn"] == arn
