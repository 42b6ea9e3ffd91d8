"""Roles, policies and users."""

from __future__ import annotations

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import (
    Inputs,
    Making,
    call,
    fitting_call,
    makes,
    only,
    tag_list,
    taken,
)


@makes("iam/role:Role")
def role(resource: Resource, inputs: Inputs) -> Making:
    (tags,) = taken(inputs, "tags")
    words = {"name": "roleName", "assumeRolePolicy": "assumeRolePolicyDocument"}
    made = yield fitting_call("iam.CreateRole", inputs, words, Tags=tag_list(tags))
    return inputs["name"], {"arn": made["Role"]["Arn"], "uniqueId": made["Role"]["RoleId"]}


@makes("iam/rolePolicy:RolePolicy")
def role_policy(resource: Resource, inputs: Inputs) -> Making:
    del inputs["tags"]
    words = {"name": "policyName", "role": "roleName", "policy": "policyDocument"}
    yield fitting_call("iam.PutRolePolicy", inputs, words)
    return f"{inputs['role']}:{inputs['name']}", {}


@makes("iam/policy:Policy")
def policy(resource: Resource, inputs: Inputs) -> Making:
    (tags,) = taken(inputs, "tags")
    words = {"name": "policyName", "policy": "policyDocument"}
    made = yield fitting_call("iam.CreatePolicy", inputs, words, Tags=tag_list(tags))
    return made["Policy"]["Arn"], {"arn": made["Policy"]["Arn"]}


@makes("iam/instanceProfile:InstanceProfile")
def instance_profile(resource: Resource, inputs: Inputs) -> Making:
    name, role_name, tags = taken(inputs, "name", "role", "tags")
    only(inputs)
    made = yield call("iam.CreateInstanceProfile", InstanceProfileName=name, Tags=tag_list(tags))
    yield call("iam.AddRoleToInstanceProfile", InstanceProfileName=name, RoleName=role_name)
    return name, {"arn": made["InstanceProfile"]["Arn"]}


@makes("cognito/userPool:UserPool")
def user_pool(resource: Resource, inputs: Inputs) -> Making:
    second, passwords, software, tags = taken(
        inputs, "mfaConfiguration", "passwordPolicy", "softwareTokenMfaConfiguration", "tags"
    )
    inputs["policies"] = {"passwordPolicy": passwords}
    made = yield fitting_call("cognito-idp.CreateUserPool", inputs, {"name": "poolName"}, UserPoolTags=tags)
    pool = made["UserPool"]
    yield fitting_call(
        "cognito-idp.SetUserPoolMfaConfig",
        {"mfaConfiguration": second, "softwareTokenMfaConfiguration": software},
        UserPoolId=pool["Id"],
    )
    return pool["Id"], {"arn": pool["Arn"], "endpoint": f"cognito-idp.us-east-1.amazonaws.com/{pool['Id']}"}


@makes("cognito/userPoolDomain:UserPoolDomain")
def user_pool_domain(resource: Resource, inputs: Inputs) -> Making:
    del inputs["tags"]
    yield fitting_call("cognito-idp.CreateUserPoolDomain", inputs)
    return inputs["domain"], {}


@makes("cognito/userPoolClient:UserPoolClient")
def user_pool_client(resource: Resource, inputs: Inputs) -> Making:
    del inputs["tags"]
    made = yield fitting_call(
        "cognito-idp.CreateUserPoolClient",
        inputs,
        # The one name of this service that does not begin like the others.
        {"name": "clientName", "callbackUrls": "callbackURLs", "logoutUrls": "logoutURLs"},
    )
    return made["UserPoolClient"]["ClientId"], {}
