"""Instance profiles and user pools."""

from __future__ import annotations

from tests.infrastructure.moto_deploy.provider_outputs import REGION
from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    call,
    convert_call,
    handles,
    pop_inputs,
    tag_list,
)


@handles("iam/instanceProfile:InstanceProfile")
def instance_profile(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, role_name, tags = pop_inputs(inputs, "name", "role", "tags")
    assert_consumed(inputs)
    result = yield call("iam.CreateInstanceProfile", InstanceProfileName=name, Tags=tag_list(tags))
    yield call("iam.AddRoleToInstanceProfile", InstanceProfileName=name, RoleName=role_name)
    return name, {"arn": result["InstanceProfile"]["Arn"]}


@handles("cognito/userPool:UserPool")
def user_pool(resource: Resource, inputs: Inputs) -> CallGenerator:
    mfa, password_policy, software_token, tags = pop_inputs(
        inputs, "mfaConfiguration", "passwordPolicy", "softwareTokenMfaConfiguration", "tags"
    )
    inputs["policies"] = {"passwordPolicy": password_policy}
    result = yield convert_call("cognito-idp.CreateUserPool", inputs, {"name": "poolName"}, UserPoolTags=tags)
    pool = result["UserPool"]
    yield convert_call(
        "cognito-idp.SetUserPoolMfaConfig",
        {"mfaConfiguration": mfa, "softwareTokenMfaConfiguration": software_token},
        UserPoolId=pool["Id"],
    )
    return pool["Id"], {"arn": pool["Arn"], "endpoint": f"cognito-idp.{REGION}.amazonaws.com/{pool['Id']}"}
