"""The HTTP API and the website."""

from __future__ import annotations

from typing import Any

from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    build_arn,
    convert_call,
    handles,
    pop_inputs,
    tag_list,
)


@handles("apigatewayv2/api:Api")
def api(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    result = yield convert_call("apigatewayv2.CreateApi", inputs, Tags=tags)
    identity = result["ApiId"]
    outputs = {"apiEndpoint": result["ApiEndpoint"], "executionArn": build_arn("execute-api", identity)}
    return identity, outputs


@handles("apigatewayv2/authorizer:Authorizer")
def authorizer(resource: Resource, inputs: Inputs) -> CallGenerator:
    sources, jwt, _tags = pop_inputs(inputs, "identitySources", "jwtConfiguration", "tags")
    extra = {"JwtConfiguration": {"Issuer": jwt["issuer"], "Audience": jwt["audiences"]}} if jwt else {}
    result = yield convert_call("apigatewayv2.CreateAuthorizer", inputs, IdentitySource=sources, **extra)
    return result["AuthorizerId"], {}


@handles("cloudfront/responseHeadersPolicy:ResponseHeadersPolicy")
def headers_policy(resource: Resource, inputs: Inputs) -> CallGenerator:
    security, custom, name = pop_inputs(inputs, "securityHeadersConfig", "customHeadersConfig", "name")
    assert_consumed(inputs, "tags")
    transport = security["strictTransportSecurity"]
    transport["accessControlMaxAgeSec"] = int(transport["accessControlMaxAgeSec"])
    policy = {
        "name": name,
        "securityHeadersConfig": security,
        "customHeadersConfig": _with_quantity(custom["items"]),
    }
    result = yield convert_call(
        "cloudfront.CreateResponseHeadersPolicy", {"responseHeadersPolicyConfig": policy}
    )
    return result["ResponseHeadersPolicy"]["Id"], {}


@handles("cloudfront/distribution:Distribution")
def distribution(resource: Resource, inputs: Inputs) -> CallGenerator:
    origins, behavior, ordered, tags = pop_inputs(
        inputs, "origins", "defaultCacheBehavior", "orderedCacheBehaviors", "tags"
    )
    certificate, _wait, ipv6 = pop_inputs(inputs, "viewerCertificate", "waitForDeployment", "isIpv6Enabled")
    geography = inputs.pop("restrictions")["geoRestriction"]
    config = {
        **inputs,
        "isIPV6Enabled": ipv6,
        "callerReference": resource.name,
        "origins": _with_quantity([_convert_origin(each) for each in origins]),
        "defaultCacheBehavior": _convert_behavior(behavior),
        "cacheBehaviors": _with_quantity([_convert_behavior(each) for each in ordered]),
        "viewerCertificate": {"cloudFrontDefaultCertificate": certificate["cloudfrontDefaultCertificate"]},
        "restrictions": {"geoRestriction": {"restrictionType": geography["restrictionType"], "quantity": 0}},
    }
    tagged = {"distributionConfig": config, "tags": {"items": tag_list(tags, "key", "value")}}
    result = yield convert_call(
        "cloudfront.CreateDistributionWithTags", {"distributionConfigWithTags": tagged}
    )
    created = result["Distribution"]
    return created["Id"], {"arn": created["ARN"], "domainName": created["DomainName"]}


def _with_quantity(items: list[Any]) -> dict[str, Any]:
    """CloudFront's lists carry their length."""
    return {"quantity": len(items), "items": items}


def _convert_origin(origin: dict[str, Any]) -> dict[str, Any]:
    renamed = {("id" if name == "originId" else name): value for name, value in origin.items()}
    # Required, and empty with origin access control.
    return {**renamed, "s3OriginConfig": {"originAccessIdentity": ""}}


def _convert_behavior(behavior: dict[str, Any]) -> dict[str, Any]:
    allowed, cached = behavior.pop("allowedMethods"), behavior.pop("cachedMethods")
    return {
        **behavior,
        "allowedMethods": {**_with_quantity(allowed), "cachedMethods": _with_quantity(cached)},
    }
