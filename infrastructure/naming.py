"""Names and addresses of resources, known before they exist.

Functions, roles and the state machine refer to each other in circles; their names are fixed here, so that one can be
given another's address before it is made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """What things are called in one stack, in one account and region."""

    stack: str
    account: str
    region: str
    partition: str = "aws"

    @property
    def prefix(self) -> str:
        """What every name begins with."""
        return f"gorggle-{self.stack}"

    def bucket(self, role: str) -> str:
        """A bucket's name; these are shared by the whole world, so account and region are part of it."""
        return f"{self.prefix}-{role}-{self.account}-{self.region}"

    def function(self, name: str) -> str:
        """A Lambda function's name."""
        return f"{self.prefix}-{name}"

    @property
    def state_machine(self) -> str:
        """The pipeline's name."""
        return f"{self.prefix}-pipeline"

    @property
    def fleet(self) -> str:
        """The Auto Scaling group's name."""
        return f"{self.prefix}-gpu"

    def table(self, role: str) -> str:
        """A table's name."""
        return f"{self.prefix}-{role}"

    def queue(self, role: str) -> str:
        """A queue's name."""
        return f"{self.prefix}-{role}"

    def topic(self, role: str) -> str:
        """A topic's name."""
        return f"{self.prefix}-{role}"

    @property
    def sign_in_domain(self) -> str:
        """What the user pool's pages are called among those of everybody in the region."""
        return f"{self.prefix}-{self.account}"

    @property
    def sign_in_url(self) -> str:
        """Where people sign in, with a user pool of the stack's own."""
        return f"https://{self.sign_in_domain}.auth.{self.region}.amazoncognito.com"

    @property
    def metrics_namespace(self) -> str:
        """The CloudWatch namespace of what the stack measures itself."""
        return f"Gorggle/{self.stack}"

    def arn(self, service: str, resource: str, *, region: bool = True, account: bool = True) -> str:
        """The address of a resource; global services have no region, and S3 no account either."""
        return (
            f"arn:{self.partition}:{service}:{self.region if region else ''}:"
            f"{self.account if account else ''}:{resource}"
        )

    @property
    def state_machine_arn(self) -> str:
        """The pipeline's address."""
        return self.arn("states", f"stateMachine:{self.state_machine}")

    @property
    def fleet_arn(self) -> str:
        """The Auto Scaling group's address; AWS puts an id of its own before the name."""
        return self.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{self.fleet}")

    def function_arn(self, name: str) -> str:
        """A Lambda function's address."""
        return self.arn("lambda", f"function:{self.function(name)}")

    def secret(self, role: str) -> str:
        """A secret's name."""
        return f"{self.prefix}/{role}"

    def secret_arn(self, role: str) -> str:
        """A secret's address; Secrets Manager appends six characters of its own."""
        return self.arn("secretsmanager", f"secret:{self.secret(role)}-??????")
