"""The HTTP API and the website."""

from __future__ import annotations

from typing import Any

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    convert_call,
    handles,
    pop_inputs,
)


@handles("apigatewayv2/api:Api")
def api(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call("apigatewayv2.CreateApi", inputs, Tags=tags)
    identity = made["ApiId"]
    arn = f"arn:aws:execute-api:us-east-1:123456789012:{identity}"
    return identity, {"apiEndpoint": made["ApiEndpoint"], "executionArn": arn}


@handles("apigatewayv2/authorizer:Authorizer")
def authorizer(resource: Resource, inputs: Inputs) -> CallGenerator:
    sources, jwt, _tags = pop_inputs(inputs, "identitySources", "jwtConfiguration", "tags")
    further = {"JwtConfiguration": {"Issuer": jwt["issuer"], "Audience": jwt["audiences"]}} if jwt else {}
    made = yield convert_call("apigatewayv2.CreateAuthorizer", inputs, IdentitySource=sources, **further)
    return made["AuthorizerId"], {}


@handles("apigatewayv2/integration:Integration")
def integration(resource: Resource, inputs: Inputs) -> CallGenerator:
    timeout, _tags = pop_inputs(inputs, "timeoutMilliseconds", "tags")
    made = yield convert_call("apigatewayv2.CreateIntegration", inputs, TimeoutInMillis=timeout)
    return made["IntegrationId"], {}


@handles("apigatewayv2/route:Route")
def route(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    made = yield convert_call("apigatewayv2.CreateRoute", inputs)
    return made["RouteId"], {}


@handles("apigatewayv2/stage:Stage")
def stage(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    yield convert_call("apigatewayv2.CreateStage", inputs, {"name": "stageName"}, Tags=tags)
    return inputs["name"], {}


@handles("cloudfront/originAccessControl:OriginAccessControl")
def access_control(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    kind = inputs.pop("originAccessControlOriginType")
    wrapped = {"originAccessControlConfig": {**inputs, "originAccessControlOriginType": kind}}
    made = yield convert_call("cloudfront.CreateOriginAccessControl", wrapped)
    return made["OriginAccessControl"]["Id"], {}


@handles("cloudfront/responseHeadersPolicy:ResponseHeadersPolicy")
def headers_policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    security, custom, name = pop_inputs(inputs, "securityHeadersConfig", "customHeadersConfig", "name")
    assert_consumed(inputs, "tags")
    transport = security["strictTransportSecurity"]
    transport["accessControlMaxAgeSec"] = int(transport["accessControlMaxAgeSec"])
    wanted = {
        "name": name,
        "securityHeadersConfig": security,
        "customHeadersConfig": _with_quantity(custom["items"]),
    }
    made = yield convert_call(
        "cloudfront.CreateResponseHeadersPolicy", {"responseHeadersPolicyConfig": wanted}
    )
    return made["ResponseHeadersPolicy"]["Id"], {}


@handles("cloudfront/distribution:Distribution")
def distribution(resource: Resource, inputs: Inputs) -> CallGenerator:
    origins, behavior, ordered, tags = pop_inputs(
        inputs, "origins", "defaultCacheBehavior", "orderedCacheBehaviors", "tags"
    )
    certificate, _wait = pop_inputs(inputs, "viewerCertificate", "waitForDeployment")
    geography = inputs.pop("restrictions")["geoRestriction"]
    wanted = {
        **inputs,
        "callerReference": resource.name,
        "origins": _with_quantity([_convert_origin(each) for each in origins]),
        "defaultCacheBehavior": _convert_behavior(behavior),
        "cacheBehaviors": _with_quantity([_convert_behavior(each) for each in ordered]),
        "viewerCertificate": {"cloudFrontDefaultCertificate": certificate["cloudfrontDefaultCertificate"]},
        "restrictions": {"geoRestriction": {"restrictionType": geography["restrictionType"], "quantity": 0}},
    }
    wrapped = {
        "distributionConfigWithTags": {"distributionConfig": wanted, "tags": {"items": _tag_items(tags)}}
    }
    words = {"isIpv6Enabled": "isIPV6Enabled"}
    wanted.update({words[name]: wanted.pop(name) for name in words if name in wanted})
    made = yield convert_call("cloudfront.CreateDistributionWithTags", wrapped)
    found = made["Distribution"]
    return found["Id"], {"arn": found["ARN"], "domainName": found["DomainName"]}


def _tag_items(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": text} for name, text in tags.items()]


def _with_quantity(items: list[Any]) -> dict[str, Any]:
    """CloudFront counts its lists."""
    return {"quantity": len(items), "items": items}


def _convert_origin(origin: dict[str, Any]) -> dict[str, Any]:
    renamed = {("id" if name == "originId" else name): value for name, value in origin.items()}
    # With access control the older way is said to be off.
    return {**renamed, "s3OriginConfig": {"originAccessIdentity": ""}}


def _convert_behavior(behavior: dict[str, Any]) -> dict[str, Any]:
    allowed, cached = behavior.pop("allowedMethods"), behavior.pop("cachedMethods")
    return {
        **behavior,
        "allowedMethods": {**_with_quantity(allowed), "cachedMethods": _with_quantity(cached)},
    }
