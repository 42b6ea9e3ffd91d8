"""Lambda functions from the manifests, each with its own role and log group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.component import Component, StackContext
from infrastructure.function_manifest import FunctionSpec
from infrastructure.resource_references import ResourceReferences

# Lambda uses these with the function's role to connect it to the VPC; the code itself must not use them.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-best-practice-security
VPC_ACTIONS = iam.VPC_ACCESS_GRANT.actions


@dataclass(frozen=True)
class CodeLocation:
    """Location of a code package in S3."""

    bucket: pulumi.Input[str]
    key: pulumi.Input[str]
    sha256_base64: str


@dataclass(frozen=True)
class SharedResources:
    """Resources that all functions share."""

    references: ResourceReferences
    layers: Mapping[str, pulumi.Input[str]]
    subnet_ids: list[pulumi.Output[str]]
    security_group_id: pulumi.Input[str]
    dead_letter_queue_arn: pulumi.Input[str]


class LambdaFunction(Component):
    """A function; ``name`` and ``arn`` are its outputs."""

    def __init__(
        self, context: StackContext, spec: FunctionSpec, code: CodeLocation, shared: SharedResources
    ) -> None:
        full_name, settings = context.names.resource(spec.name), context.settings
        super().__init__("functions:LambdaFunction", full_name, context)
        self._shared, self.spec = shared, spec
        self.log_group = self._create_log_group("logs", f"/aws/lambda/{full_name}")
        self.role = iam.ServiceRole(full_name, "lambda.amazonaws.com", self._build_grants(), opts=self._child)
        self.function = aws.lambda_.Function(
            f"{full_name}-function",
            name=full_name,
            description=spec.description,
            runtime=f"python{settings.python_version}",
            architectures=[settings.architecture],
            handler=spec.handler,
            memory_size=spec.memory_mib,
            timeout=spec.timeout_s,
            ephemeral_storage={"size": spec.ephemeral_mib},
            layers=[shared.layers[layer] for layer in spec.layers] or None,
            s3_bucket=code.bucket,
            s3_key=code.key,
            source_code_hash=code.sha256_base64,
            environment={"variables": shared.references.resolve_environment(spec)},
            role=self.role.arn,
            tracing_config={"mode": "Active" if settings.tracing else "PassThrough"},
            logging_config={"log_format": "JSON", "log_group": self.log_group.name},
            vpc_config=self._vpc_config(),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.role.policy, self.log_group]),
        )
        self.name, self.arn = self.function.name, self.function.arn
        if spec.is_asynchronous:
            self._configure_dead_letters()
        self.register_outputs({"arn": self.arn})

    def _build_grants(self) -> list[iam.Grant]:
        grants = self._shared.references.to_grants(self.spec.statements)
        grants.append(iam.log_write_grant(self.log_group.arn))
        if self._settings.tracing:
            grants.append(iam.XRAY_GRANT)
        if self.spec.in_vpc:
            grants.append(iam.VPC_ACCESS_GRANT)
            grants.append(self._deny_vpc_actions())
        if self.spec.is_asynchronous:
            grants.append(iam.Grant(("sqs:SendMessage",), [self._shared.dead_letter_queue_arn]))
        return grants

    def _deny_vpc_actions(self) -> iam.Grant:
        arn = self._names.function_arn(self.spec.name)
        conditions = {"ArnEquals": {"lambda:SourceFunctionArn": arn}}
        return iam.Grant(VPC_ACTIONS, ["*"], conditions, effect="Deny")

    def _vpc_config(self) -> dict[str, object] | None:
        if not self.spec.in_vpc:
            return None
        return {
            "subnet_ids": self._shared.subnet_ids,
            "security_group_ids": [self._shared.security_group_id],
        }

    def _configure_dead_letters(self) -> None:
        """Send events of asynchronous invocations to the dead-letter queue after three attempts."""
        aws.lambda_.FunctionEventInvokeConfig(
            f"{self._name}-events",
            function_name=self.name,
            maximum_retry_attempts=2,
            maximum_event_age_in_seconds=3600,
            destination_config={"on_failure": {"destination": self._shared.dead_letter_queue_arn}},
            opts=self._child,
        )

    def allow_invocation(
        self, role: str, service: str, source_arn: pulumi.Input[str]
    ) -> aws.lambda_.Permission:
        """Allow a resource of an AWS service to invoke the function."""
        return aws.lambda_.Permission(
            f"{self._name}-from-{role}",
            action="lambda:InvokeFunction",
            function=self.name,
            principal=service,
            source_arn=source_arn,
            source_account=self._names.account if service == "secretsmanager.amazonaws.com" else None,
            opts=self._child,
        )
