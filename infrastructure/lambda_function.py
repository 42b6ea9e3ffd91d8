"""Lambda functions from the manifests, each with its own role and log group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.config import StackSettings
from infrastructure.function_manifest import FunctionSpec
from infrastructure.naming import Names
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
class FunctionContext:
    """Settings and resources that all functions share."""

    names: Names
    settings: StackSettings
    references: ResourceReferences
    layers: Mapping[str, pulumi.Input[str]]
    subnet_ids: list[pulumi.Output[str]]
    security_group_id: pulumi.Input[str]
    dead_letter_queue_arn: pulumi.Input[str]
    key_arn: pulumi.Input[str]


class LambdaFunction(pulumi.ComponentResource):
    """A function; ``name`` and ``arn`` are its outputs."""

    def __init__(
        self,
        spec: FunctionSpec,
        code: CodeLocation,
        context: FunctionContext,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        full_name = context.names.function(spec.name)
        super().__init__("gorggle:functions:LambdaFunction", full_name, None, opts)
        self._context, self.spec = context, spec
        child = pulumi.ResourceOptions(parent=self)
        self.log_group = aws.cloudwatch.LogGroup(
            f"{full_name}-logs",
            name=f"/aws/lambda/{full_name}",
            retention_in_days=context.settings.log_retention_days,
            kms_key_id=context.key_arn,
            opts=child,
        )
        self.role = iam.ServiceRole(
            full_name, "lambda.amazonaws.com", self._build_grants(), opts=pulumi.ResourceOptions(parent=self)
        )
        tracing = {"mode": "Active" if context.settings.tracing else "PassThrough"}
        self.function = aws.lambda_.Function(
            f"{full_name}-function",
            name=full_name,
            description=spec.description,
            runtime=f"python{context.settings.python_version}",
            architectures=[context.settings.architecture],
            handler=spec.handler,
            memory_size=spec.memory_mib,
            timeout=spec.timeout_s,
            ephemeral_storage={"size": spec.ephemeral_mib},
            layers=[context.layers[layer] for layer in spec.layers] or None,
            s3_bucket=code.bucket,
            s3_key=code.key,
            source_code_hash=code.sha256_base64,
            environment={"variables": context.references.resolve_environment(spec)},
            role=self.role.arn,
            tracing_config=tracing,
            logging_config={"log_format": "JSON", "log_group": self.log_group.name},
            vpc_config=self._vpc_config(),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.role.policy, self.log_group]),
        )
        self.name, self.arn = self.function.name, self.function.arn
        if spec.is_asynchronous:
            self._configure_dead_letters(child)
        self.register_outputs({"arn": self.arn})

    def _build_grants(self) -> list[iam.Grant]:
        grants = self._context.references.to_grants(self.spec.statements)
        grants.append(iam.log_write_grant(self.log_group.arn))
        if self._context.settings.tracing:
            grants.append(iam.XRAY_GRANT)
        if self.spec.in_vpc:
            grants.append(iam.VPC_ACCESS_GRANT)
            grants.append(self._deny_vpc_actions())
        if self.spec.is_asynchronous:
            grants.append(iam.Grant(("sqs:SendMessage",), [self._context.dead_letter_queue_arn]))
        return grants

    def _deny_vpc_actions(self) -> iam.Grant:
        arn = self._context.names.function_arn(self.spec.name)
        conditions = {"ArnEquals": {"lambda:SourceFunctionArn": arn}}
        return iam.Grant(VPC_ACTIONS, ["*"], conditions, effect="Deny")

    def _vpc_config(self) -> dict[str, object] | None:
        if not self.spec.in_vpc:
            return None
        return {
            "subnet_ids": self._context.subnet_ids,
            "security_group_ids": [self._context.security_group_id],
        }

    def _configure_dead_letters(self, child: pulumi.ResourceOptions) -> None:
        """Send events of asynchronous invocations to the dead-letter queue after three attempts."""
        aws.lambda_.FunctionEventInvokeConfig(
            f"{self._context.names.function(self.spec.name)}-events",
            function_name=self.name,
            maximum_retry_attempts=2,
            maximum_event_age_in_seconds=3600,
            destination_config={"on_failure": {"destination": self._context.dead_letter_queue_arn}},
            opts=child,
        )

    def allow_invocation(
        self, role: str, service: str, source_arn: pulumi.Input[str]
    ) -> aws.lambda_.Permission:
        """Allow a resource of an AWS service to invoke the function."""
        full_name = self._context.names.function(self.spec.name)
        return aws.lambda_.Permission(
            f"{full_name}-from-{role}",
            action="lambda:InvokeFunction",
            function=self.name,
            principal=service,
            source_arn=source_arn,
            source_account=self._context.names.account if service == "secretsmanager.amazonaws.com" else None,
            opts=pulumi.ResourceOptions(parent=self),
        )
