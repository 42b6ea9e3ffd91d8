"""The HTTP API with the routes of the manifest; except for public routes, requests need a token or a JWT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.cors import api_cors_rule
from infrastructure.function_manifest import Manifest
from infrastructure.lambda_function import LambdaFunction

# The maximum of API Gateway.
INTEGRATION_TIMEOUT_MS = 30_000
# Without query, IP address and token, which may be private.
ACCESS_LOG_FORMAT = {
    "request": "$context.requestId",
    "time": "$context.requestTime",
    "route": "$context.routeKey",
    "status": "$context.status",
    "latency_ms": "$context.responseLatency",
    "error": "$context.error.messageString",
    "integration_error": "$context.integrationErrorMessage",
    "authorizer_error": "$context.authorizer.error",
}


class Api(Component):
    """API, stage, routes and authorizer; ``url`` is its endpoint."""

    def __init__(
        self,
        name: str,
        context: StackContext,
        manifest: Manifest,
        functions: Mapping[str, LambdaFunction],
        origins: list[pulumi.Output[str]],
    ) -> None:
        """``origins``: allowed origins (CORS)."""
        super().__init__("api:Api", name, context)
        self._functions, self._origins = functions, origins
        self.api = aws.apigatewayv2.Api(
            f"{name}-http",
            name=self._names.prefix,
            protocol_type="HTTP",
            cors_configuration=api_cors_rule(origins) if origins else None,
            opts=self._child,
        )
        # Sign-in settings of the website.
        self.sign_in_config: dict[str, pulumi.Input[str]] = {"auth": self._settings.api_auth}
        self._authorization_type, self._authorizer = self._create_authorizer(manifest)
        for function in manifest.triggered_by("route"):
            self._add_route(functions[function.name])
        self.stage = self._create_stage()
        self.url = self.api.api_endpoint
        self.register_outputs({"address": self.url})

    def _create_authorizer(self, manifest: Manifest) -> tuple[str, aws.apigatewayv2.Authorizer]:
        match self._settings.api_auth:
            case "token":
                return "CUSTOM", self._create_token_authorizer(manifest)
            case "jwt":
                return "JWT", self._create_jwt_authorizer(
                    self._settings.jwt_issuer, self._settings.jwt_audience
                )
        pool, client = self._create_user_pool()
        self.sign_in_config.update({"client_id": client.id, "sign_in": self._names.sign_in_url})
        issuer = pulumi.Output.concat(f"https://cognito-idp.{self._names.region}.amazonaws.com/", pool.id)
        return "JWT", self._create_jwt_authorizer(issuer, [client.id])

    def _create_token_authorizer(self, manifest: Manifest) -> aws.apigatewayv2.Authorizer:
        shape = next(manifest.triggered_by("authorizer"))
        function = self._functions[shape.name]
        authorizer = aws.apigatewayv2.Authorizer(
            f"{self._name}-tokens",
            name="tokens",
            api_id=self.api.id,
            authorizer_type="REQUEST",
            authorizer_uri=function.function.invoke_arn,
            authorizer_payload_format_version=shape.trigger["payload"],
            enable_simple_responses=shape.trigger["simple"],
            identity_sources=[shape.trigger["identity"]],
            authorizer_result_ttl_in_seconds=shape.trigger["ttl_s"],
            opts=self._child,
        )
        source = pulumi.Output.concat(self.api.execution_arn, "/authorizers/", authorizer.id)
        function.allow_invocation("api", "apigateway.amazonaws.com", source)
        return authorizer

    def _create_jwt_authorizer(
        self, issuer: pulumi.Input[str], audience: Sequence[pulumi.Input[str]]
    ) -> aws.apigatewayv2.Authorizer:
        return aws.apigatewayv2.Authorizer(
            f"{self._name}-jwt",
            name="jwt",
            api_id=self.api.id,
            authorizer_type="JWT",
            identity_sources=["$request.header.Authorization"],
            jwt_configuration={"issuer": issuer, "audiences": list(audience)},
            opts=self._child,
        )

    def _create_user_pool(self) -> tuple[aws.cognito.UserPool, aws.cognito.UserPoolClient]:
        """Create a pool of users that an administrator invites, with optional multi-factor authentication."""
        pool = aws.cognito.UserPool(
            f"{self._name}-users",
            name=self._names.prefix,
            username_attributes=["email"],
            auto_verified_attributes=["email"],
            admin_create_user_config={"allow_admin_create_user_only": True},
            mfa_configuration="OPTIONAL",
            software_token_mfa_configuration={"enabled": True},
            password_policy={
                "minimum_length": 12,
                "require_lowercase": True,
                "require_uppercase": True,
                "require_numbers": True,
                "require_symbols": False,
                "temporary_password_validity_days": 7,
            },
            deletion_protection="ACTIVE" if self._settings.deletion_protection else "INACTIVE",
            opts=self._child,
        )
        aws.cognito.UserPoolDomain(
            f"{self._name}-sign-in",
            domain=self._names.sign_in_domain,
            user_pool_id=pool.id,
            opts=self._child,
        )
        pages = [pulumi.Output.concat(origin, "/") for origin in self._origins]
        client = aws.cognito.UserPoolClient(
            f"{self._name}-client",
            name=self._names.prefix,
            user_pool_id=pool.id,
            generate_secret=False,
            explicit_auth_flows=["ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
            prevent_user_existence_errors="ENABLED",
            supported_identity_providers=["COGNITO"],
            # The sign-in pages redirect to the website; without a website there is no OAuth flow.
            allowed_oauth_flows=["code"] if pages else None,
            allowed_oauth_scopes=["openid", "email"] if pages else None,
            allowed_oauth_flows_user_pool_client=bool(pages),
            callback_urls=pages or None,
            logout_urls=pages or None,
            opts=self._child,
        )
        return pool, client

    def _add_route(self, function: LambdaFunction) -> None:
        spec = function.spec
        integration = aws.apigatewayv2.Integration(
            f"{self._name}-{spec.name}",
            api_id=self.api.id,
            integration_type="AWS_PROXY",
            integration_uri=function.function.invoke_arn,
            integration_method="POST",
            payload_format_version="2.0",
            timeout_milliseconds=INTEGRATION_TIMEOUT_MS,
            opts=self._child,
        )
        is_authorized = spec.trigger["authorized"]
        aws.apigatewayv2.Route(
            f"{self._name}-{spec.name}-route",
            api_id=self.api.id,
            route_key=spec.trigger["route"],
            target=pulumi.Output.concat("integrations/", integration.id),
            authorization_type=self._authorization_type if is_authorized else "NONE",
            authorizer_id=self._authorizer.id if is_authorized else None,
            opts=self._child,
        )
        method, _, path = spec.trigger["route"].partition(" ")
        # Allow this route only. Path parameters are wildcards in the ARN; $default is literal.
        pattern = "/".join("*" if part.startswith("{") else part for part in path.split("/"))
        source = pulumi.Output.concat(self.api.execution_arn, f"/*/{method}{pattern}")
        function.allow_invocation("api", "apigateway.amazonaws.com", source)

    def _create_stage(self) -> aws.apigatewayv2.Stage:
        log_group = self._create_log_group("logs", f"/aws/vendedlogs/apis/{self._names.prefix}")
        return aws.apigatewayv2.Stage(
            f"{self._name}-stage",
            api_id=self.api.id,
            name="$default",
            auto_deploy=True,
            default_route_settings={
                "throttling_rate_limit": self._settings.api_rate_limit,
                "throttling_burst_limit": self._settings.api_burst_limit,
                "detailed_metrics_enabled": True,
            },
            access_log_settings={"destination_arn": log_group.arn, "format": json.dumps(ACCESS_LOG_FORMAT)},
            opts=self._child,
        )
