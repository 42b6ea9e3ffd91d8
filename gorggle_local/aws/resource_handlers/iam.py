"""Roles, policies and users."""

from __future__ import annotations

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


@handles("iam/role:Role")
def role(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    words = {"name": "roleName", "assumeRolePolicy": "assumeRolePolicyDocument"}
    made = yield convert_call("iam.CreateRole", inputs, words, Tags=tag_list(tags))
    return inputs["name"], {"arn": made["Role"]["Arn"], "uniqueId": made["Role"]["RoleId"]}


@handles("iam/rolePolicy:RolePolicy")
def role_policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    words = {"name": "policyName", "role": "roleName", "policy": "policyDocument"}
    yield convert_call("iam.PutRolePolicy", inputs, words)
    return f"{inputs['role']}:{inputs['name']}", {}


@handles("iam/policy:Policy")
def policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    words = {"name": "policyName", "policy": "policyDocument"}
    made = yield convert_call("iam.CreatePolicy", inputs, words, Tags=tag_list(tags))
    return made["Policy"]["Arn"], {"arn": made["Policy"]["Arn"]}


@handles("iam/instanceProfile:InstanceProfile")
def instance_profile(resource: Resource, inputs: Inputs) -> CallGenerator:
    name, role_name, tags = pop_inputs(inputs, "name", "role", "tags")
    assert_consumed(inputs)
    made = yield call("iam.CreateInstanceProfile", InstanceProfileName=name, Tags=tag_list(tags))
    yield call("iam.AddRoleToInstanceProfile", InstanceProfileName=name, RoleName=role_name)
    return name, {"arn": made["InstanceProfile"]["Arn"]}


@handles("cognito/userPool:UserPool")
def user_pool(resource: Resource, inputs: Inputs) -> CallGenerator:
    second, passwords, software, tags = pop_inputs(
        inputs, "mfaConfiguration", "passwordPolicy", "softwareTokenMfaConfiguration", "tags"
    )
    inputs["policies"] = {"passwordPolicy": passwords}
    made = yield convert_call("cognito-idp.CreateUserPool", inputs, {"name": "poolName"}, UserPoolTags=tags)
    pool = made["UserPool"]
    yield convert_call(
        "cognito-idp.SetUserPoolMfaConfig",
        {"mfaConfiguration": second, "softwareTokenMfaConfiguration": software},
        UserPoolId=pool["Id"],
    )
    return pool["Id"], {"arn": pool["Arn"], "endpoint": f"cognito-idp.us-east-1.amazonaws.com/{pool['Id']}"}


@handles("cognito/userPoolDomain:UserPoolDomain")
def user_pool_domain(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("cognito-idp.CreateUserPoolDomain", inputs)
    return inputs["domain"], {}


@handles("cognito/userPoolClient:UserPoolClient")
def user_pool_client(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    made = yield convert_call(
        "cognito-idp.CreateUserPoolClient",
        inputs,
        # The one name of this service that does not begin like the others.
        {"name": "clientName", "callbackUrls": "callbackURLs", "logoutUrls": "logoutURLs"},
    )
    return made["UserPoolClient"]["ClientId"], {}
