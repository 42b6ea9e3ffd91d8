"""Internal network load balancer in front of the GPU servers, with TLS passthrough.

The server verifies client certificates (mutual TLS), so the load balancer must not terminate TLS. No domain name or public
certificate is needed.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infrastructure.component import Component, StackContext
from infrastructure.network import Network, allow_aws_apis, allow_traffic, create_security_group

SERVER_PORT = 50_051
# /readyz, /livez and /metrics over plain HTTP; only the load balancer's health checks may connect.
HTTP_PORT = 9464
# A stream can be silent during a long utterance; the default of 350 s is too short.
IDLE_TIMEOUT_S = 3600


class LoadBalancer(Component):
    """Load balancer, target group, listener and security groups; ``address`` is host and port."""

    def __init__(self, name: str, context: StackContext, network: Network) -> None:
        super().__init__("load_balancer:LoadBalancer", name, context)
        names, self._network = context.names, network
        self.functions_group = self._create_security_group("functions", "functions that call the GPU server")
        self.balancer_group = self._create_security_group("balancer", "the load balancer of the GPU servers")
        self.servers_group = self._create_security_group("servers", "the GPU servers")
        self._add_security_group_rules()
        self.balancer = aws.lb.LoadBalancer(
            f"{name}-balancer",
            name=names.prefix,
            load_balancer_type="network",
            internal=True,
            subnets=network.subnet_ids,
            security_groups=[self.balancer_group.id],
            # The only running server may be in another zone than the client.
            enable_cross_zone_load_balancing=True,
            opts=self._child,
        )
        self.target_group = aws.lb.TargetGroup(
            f"{name}-targets",
            name=names.prefix,
            vpc_id=network.vpc.id,
            port=SERVER_PORT,
            protocol="TCP",
            target_type="instance",
            deregistration_delay=context.settings.gpu_drain_minutes * 60,
            health_check={
                "protocol": "HTTP",
                "port": str(HTTP_PORT),
                "path": "/readyz",
                "matcher": "200",
                "interval": 10,
                "timeout": 5,
                "healthy_threshold": 2,
                "unhealthy_threshold": 3,
            },
            opts=self._child,
        )
        self.listener = aws.lb.Listener(
            f"{name}-listener",
            load_balancer_arn=self.balancer.arn,
            port=SERVER_PORT,
            protocol="TCP",
            tcp_idle_timeout_seconds=IDLE_TIMEOUT_S,
            default_actions=[{"type": "forward", "target_group_arn": self.target_group.arn}],
            opts=self._child,
        )
        self.address = pulumi.Output.concat(self.balancer.dns_name, f":{SERVER_PORT}")
        self.register_outputs({"address": self.address})

    def _create_security_group(self, role: str, description: str) -> aws.ec2.SecurityGroup:
        return create_security_group(f"{self._name}-{role}", self._network.vpc.id, description, self._child)

    def _add_security_group_rules(self) -> None:
        functions, balancer, servers = self.functions_group, self.balancer_group, self.servers_group
        for role, source, target, port, description in (
            ("functions-to-balancer", functions, balancer, SERVER_PORT, "gRPC"),
            ("balancer-to-servers", balancer, servers, SERVER_PORT, "gRPC"),
            ("balancer-asks-servers", balancer, servers, HTTP_PORT, "readiness"),
        ):
            allow_traffic(f"{self._name}-{role}", source, target, port, description, self._child)
        for role, group in (("functions", functions), ("servers", servers)):
            allow_aws_apis(f"{self._name}-{role}", group, self._network, self._child)
