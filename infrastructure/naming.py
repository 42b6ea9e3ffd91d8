"""Names and ARNs of resources.

Functions, roles and the state machine refer to each other in cycles, so their ARNs must be known before they are created.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Names in one stack, account and region."""

    stack: str
    account: str
    region: str
    partition: str = "aws"

    @property
    def prefix(self) -> str:
        """The prefix of all names."""
        return f"gorggle-{self.stack}"

    def bucket(self, role: str) -> str:
        """Return a bucket's name; account and region make it globally unique."""
        return f"{self.prefix}-{role}-{self.account}-{self.region}"

    def resource(self, role: str) -> str:
        """Return the name of a function, table, queue or topic."""
        return f"{self.prefix}-{role}"

    @property
    def state_machine(self) -> str:
        """The state machine's name."""
        return f"{self.prefix}-pipeline"

    @property
    def fleet(self) -> str:
        """The Auto Scaling group's name."""
        return f"{self.prefix}-gpu"

    @property
    def sign_in_domain(self) -> str:
        """Domain prefix of the user pool's pages, unique in the region."""
        return f"{self.prefix}-{self.account}"

    @property
    def sign_in_url(self) -> str:
        """URL of the sign-in pages of the stack's user pool."""
        return f"https://{self.sign_in_domain}.auth.{self.region}.amazoncognito.com"

    @property
    def metrics_namespace(self) -> str:
        """CloudWatch namespace of the stack's own metrics."""
        return f"Gorggle/{self.stack}"

    def arn(self, service: str, resource: str, *, region: bool = True, account: bool = True) -> str:
        """Return an ARN; global services have no region, and S3 has no account either."""
        return (
            f"arn:{self.partition}:{service}:{self.region if region else ''}:"
            f"{self.account if account else ''}:{resource}"
        )

    @property
    def state_machine_arn(self) -> str:
        """The state machine's ARN."""
        return self.arn("states", f"stateMachine:{self.state_machine}")

    @property
    def fleet_arn(self) -> str:
        """The Auto Scaling group's ARN, with a wildcard for the id that AWS assigns."""
        return self.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{self.fleet}")

    def function_arn(self, name: str) -> str:
        """Return a Lambda function's ARN."""
        return self.arn("lambda", f"function:{self.resource(name)}")

    def secret(self, role: str) -> str:
        """Return a secret's name."""
        return f"{self.prefix}/{role}"
