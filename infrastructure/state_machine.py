"""The Step Functions state machine; its definition is in ``lambdas/``, with placeholders for ARNs and settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.config import StackSettings
from infrastructure.function_manifest import StateMachineSpec
from infrastructure.lambda_function import LambdaFunction
from infrastructure.naming import Names
from infrastructure.resource_references import ResourceReferences

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def render_definition(definition: Any, values: Mapping[str, Any]) -> Any:
    """Replace each ``${Name}`` of a definition; a string that is only a placeholder gets the value with its type.

    Raises:
        KeyError: a placeholder has no value.
    """
    match definition:
        case dict():
            return {key: render_definition(value, values) for key, value in definition.items()}
        case list():
            return [render_definition(each, values) for each in definition]
        case str():
            if alone := _PLACEHOLDER.fullmatch(definition):
                return values[alone[1]]
            return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), definition)
    return definition


class Pipeline(pulumi.ComponentResource):
    """State machine with its role and log group; ``arn`` is its output."""

    def __init__(
        self,
        name: str,
        names: Names,
        settings: StackSettings,
        machine: StateMachineSpec,
        functions: Mapping[str, LambdaFunction],
        references: ResourceReferences,
        root: Path,
        key_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gorggle:pipeline:Pipeline", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.log_group = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            # Log groups with this prefix need no entry in CloudWatch Logs' resource policy, which is limited to 5120 bytes.
            name=f"/aws/vendedlogs/states/{names.state_machine}",
            retention_in_days=settings.log_retention_days,
            kms_key_id=key_arn,
            opts=child,
        )
        callees = [functions[each] for each in machine.calls]
        grants = references.to_grants(machine.statements)
        grants.append(iam.Grant(("lambda:InvokeFunction",), [each.arn for each in callees]))
        self.role = iam.ServiceRole(
            names.state_machine,
            "states.amazonaws.com",
            grants,
            conditions=iam.source_account_condition(names.account),
            opts=child,
        )
        definition = json.loads((root / "lambdas" / machine.definition).read_text())
        values: dict[str, pulumi.Input[Any]] = {each.spec.pascal_name: each.arn for each in callees}
        for key, reference in machine.substitutions.items():
            is_setting = reference.startswith("setting:")
            values[key] = references.get_setting(reference) if is_setting else references.resolve(reference)
        self.machine = aws.sfn.StateMachine(
            f"{name}-machine",
            name=names.state_machine,
            type=machine.type,
            role_arn=self.role.arn,
            definition=pulumi.Output.all(**values).apply(
                lambda values: json.dumps(render_definition(definition, values), indent=1)
            ),
            tracing_configuration={"enabled": settings.tracing},
            # Without execution data: transcripts must not be logged.
            logging_configuration={
                "level": "ERROR",
                "include_execution_data": False,
                "log_destination": pulumi.Output.concat(self.log_group.arn, ":*"),
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.role.policy]),
        )
        self.arn = self.machine.arn
        self.register_outputs({"arn": self.arn})
