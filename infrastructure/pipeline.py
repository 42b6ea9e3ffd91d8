"""The Step Functions state machine, with the definition from ``gorggle_lambdas.state_machine``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from gorggle_lambdas.state_machine import build_definition
from infrastructure import iam
from infrastructure.component import Component, StackContext
from infrastructure.function_manifest import StateMachineSpec
from infrastructure.lambda_function import LambdaFunction
from infrastructure.resource_references import ResourceReferences


class Pipeline(Component):
    """State machine with its role and log group; ``arn`` is its output."""

    def __init__(
        self,
        name: str,
        context: StackContext,
        machine: StateMachineSpec,
        functions: Mapping[str, LambdaFunction],
        references: ResourceReferences,
    ) -> None:
        super().__init__("pipeline:Pipeline", name, context)
        names = context.names
        # Log groups with this prefix need no entry in CloudWatch Logs' resource policy, which is limited to 5120 bytes.
        log_group = self._create_log_group("logs", f"/aws/vendedlogs/states/{names.state_machine}")
        callees = [functions[each] for each in machine.calls]
        grants = references.to_grants(machine.statements)
        grants.append(iam.Grant(("lambda:InvokeFunction",), [each.arn for each in callees]))
        self.role = iam.ServiceRole(
            names.state_machine,
            "states.amazonaws.com",
            grants,
            conditions=iam.source_account_condition(names.account),
            opts=self._child,
        )
        values: dict[str, pulumi.Input[Any]] = {each.spec.name: each.arn for each in callees}
        for key, reference in machine.parameters.items():
            is_setting = reference.startswith("setting:")
            values[key] = references.get_setting(reference) if is_setting else references.resolve(reference)
        self.machine = aws.sfn.StateMachine(
            f"{name}-machine",
            name=names.state_machine,
            type=machine.type,
            role_arn=self.role.arn,
            definition=pulumi.Output.all(**values).apply(
                lambda resolved: json.dumps(build_definition(resolved), indent=1)
            ),
            tracing_configuration={"enabled": context.settings.tracing},
            # Without execution data: transcripts must not be logged.
            logging_configuration={
                "level": "ERROR",
                "include_execution_data": False,
                "log_destination": pulumi.Output.concat(log_group.arn, ":*"),
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.role.policy]),
        )
        self.arn = self.machine.arn
        self.register_outputs({"arn": self.arn})
