"""Secrets for certificates and API tokens. Rotation creates their values, never Pulumi."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi_aws as aws

from infrastructure.component import Component, StackContext

RECOVERY_DAYS = 7


class Credentials(Component):
    """Secrets without values, by role."""

    def __init__(self, name: str, context: StackContext, roles: Iterable[str]) -> None:
        super().__init__("credentials:Credentials", name, context)
        # With Secrets Manager's own key: free of charge, and IAM policies alone decide who may read.
        self.secrets = {
            role: aws.secretsmanager.Secret(
                f"{name}-{role}",
                name=context.names.secret(role),
                description=DESCRIPTIONS[role],
                recovery_window_in_days=RECOVERY_DAYS,
                opts=self._child,
            )
            for role in roles
        }
        self.register_outputs({})


DESCRIPTIONS = {
    "authority": "the stack's certificate authorities with their keys, newest first",
    "server_certificate": "certificate and key of the GPU server, and the CAs of its clients",
    "server_client": "client certificate and key of the pipeline, and the CAs of the GPU server",
    "api_tokens": "names and SHA-256 hashes of the API tokens",
    "operator_token": "the operator's API token",
}
