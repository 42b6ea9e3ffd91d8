"""Lambda functions as the manifests describe them: each with its own role, log group and trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.config import StackSettings
from infrastructure.function_manifest import Function
from infrastructure.naming import Names
from infrastructure.resource_references import ResourceReferences

# What Lambda itself does in a function's name when it connects it to the network is nothing its code should do.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-best-practice-security
DENIED_TO_CODE = iam.NETWORK_INTERFACES.actions


@dataclass(frozen=True)
class Code:
    """Where a function's package lies in S3."""

    bucket: pulumi.Input[str]
    key: pulumi.Input[str]
    sha256_base64: str


@dataclass(frozen=True)
class FunctionContext:
    """What all functions of the stack share."""

    names: Names
    settings: StackSettings
    references: ResourceReferences
    layers: Mapping[str, pulumi.Input[str]]
    subnet_ids: list[pulumi.Output[str]]
    group_id: pulumi.Input[str]
    dead_letters_arn: pulumi.Input[str]
    key_arn: pulumi.Input[str]


class LambdaFunction(pulumi.ComponentResource):
    """One function."""

    def __init__(
        self,
        function: Function,
        code: Code,
        around: FunctionContext,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        full_name = around.names.function(function.name)
        super().__init__("gorggle:functions:LambdaFunction", full_name, None, opts)
        self._around, self.manifest = around, function
        child = pulumi.ResourceOptions(parent=self)
        self.log_group = aws.cloudwatch.LogGroup(
            f"{full_name}-logs",
            name=f"/aws/lambda/{full_name}",
            retention_in_days=around.settings.log_retention_days,
            kms_key_id=around.key_arn,
            opts=child,
        )
        self.role = iam.ServiceRole(
            full_name, "lambda.amazonaws.com", self._grants(), opts=pulumi.ResourceOptions(parent=self)
        )
        tracing = {"mode": "Active" if around.settings.tracing else "PassThrough"}
        self.function = aws.lambda_.Function(
            f"{full_name}-function",
            name=full_name,
            description=function.description,
            runtime=f"python{around.settings.python_version}",
            architectures=[around.settings.architecture],
            handler=function.handler,
            memory_size=function.memory_mib,
            timeout=function.timeout_s,
            ephemeral_storage={"size": function.ephemeral_mib},
            layers=[around.layers[layer] for layer in function.layers] or None,
            s3_bucket=code.bucket,
            s3_key=code.key,
            source_code_hash=code.sha256_base64,
            environment={"variables": around.references.environment(function)},
            role=self.role.arn,
            tracing_config=tracing,
            logging_config={"log_format": "JSON", "log_group": self.log_group.name},
            vpc_config=self._network(),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.role.policy, self.log_group]),
        )
        self.name, self.arn = self.function.name, self.function.arn
        if function.is_asynchronous:
            self._configure_dead_letters(child)
        self.register_outputs({"arn": self.arn})

    def _grants(self) -> list[iam.Grant]:
        grants = self._around.references.grants(self.manifest.statements)
        grants.append(iam.log_writing(self.log_group.arn))
        if self._around.settings.tracing:
            grants.append(iam.TRACING)
        if self.manifest.in_vpc:
            grants.append(iam.NETWORK_INTERFACES)
            grants.append(self._not_by_code())
        if self.manifest.is_asynchronous:
            grants.append(iam.Grant(("sqs:SendMessage",), [self._around.dead_letters_arn]))
        return grants

    def _not_by_code(self) -> iam.Grant:
        arn = self._around.names.function_arn(self.manifest.name)
        conditions = {"ArnEquals": {"lambda:SourceFunctionArn": arn}}
        return iam.Grant(DENIED_TO_CODE, ["*"], conditions, effect="Deny")

    def _network(self) -> dict[str, object] | None:
        if not self.manifest.in_vpc:
            return None
        return {"subnet_ids": self._around.subnet_ids, "security_group_ids": [self._around.group_id]}

    def _configure_dead_letters(self, child: pulumi.ResourceOptions) -> None:
        """Lambda tries an event that nobody waits for three times; then it goes to the dead letters."""
        aws.lambda_.FunctionEventInvokeConfig(
            f"{self._around.names.function(self.manifest.name)}-events",
            function_name=self.name,
            maximum_retry_attempts=2,
            maximum_event_age_in_seconds=3600,
            destination_config={"on_failure": {"destination": self._around.dead_letters_arn}},
            opts=child,
        )

    def permit(self, role: str, service: str, source_arn: pulumi.Input[str]) -> aws.lambda_.Permission:
        """Let one thing of one service call the function."""
        full_name = self._around.names.function(self.manifest.name)
        return aws.lambda_.Permission(
            f"{full_name}-from-{role}",
            action="lambda:InvokeFunction",
            function=self.name,
            principal=service,
            source_arn=source_arn,
            source_account=self._around.names.account if service == "secretsmanager.amazonaws.com" else None,
            opts=pulumi.ResourceOptions(parent=self),
        )
