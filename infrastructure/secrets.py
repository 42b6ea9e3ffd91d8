"""Secrets: who server and clients are, and who may call the API. Their values are made by rotation, never by Pulumi."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_aws as aws

from infrastructure.naming import Names

RECOVERY_DAYS = 7


class Credentials(pulumi.ComponentResource):
    """Empty secrets; rotation fills them."""

    def __init__(
        self, name: str, names: Names, roles: Iterable[str], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("gorggle:credentials:Credentials", name, None, opts)
        # Under AWS's own key of Secrets Manager: it costs nothing, and who may read a secret is said in one place.
        self.secrets = {
            role: aws.secretsmanager.Secret(
                f"{name}-{role}",
                name=names.secret(role),
                description=DESCRIPTIONS[role],
                recovery_window_in_days=RECOVERY_DAYS,
                opts=pulumi.ResourceOptions(parent=self),
            )
            for role in roles
        }
        self.register_outputs({})


DESCRIPTIONS = {
    "authority": "certificate authorities of the stack, newest first, with their keys",
    "server_certificate": "the GPU server's certificate and key, and whose clients it serves",
    "server_client": "the pipeline's certificate and key for the GPU server, and which server it believes",
    "api_tokens": "names and SHA-256 hashes of the tokens that the API takes",
    "operator_token": "the operator's token for the API",
}
