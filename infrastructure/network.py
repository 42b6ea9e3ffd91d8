"""VPC with private subnets in the zones that offer the GPU instance type.

It accepts no traffic from the internet. Without a NAT gateway it has no access to the internet either: AWS services are
reached through gateway endpoints (S3, DynamoDB) and interface endpoints.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.component import Component, StackContext
from infrastructure.config import StackSettings

# Services that instances and functions in the VPC call.
INTERFACE_ENDPOINTS = ("secretsmanager", "logs", "monitoring", "autoscaling")
SESSION_MANAGER_ENDPOINTS = ("ssm", "ssmmessages")
GATEWAY_ENDPOINTS = ("s3", "dynamodb")
HTTPS_PORT = 443
SUBNET_PREFIX = 20


def find_gpu_zones(settings: StackSettings, *, opts: pulumi.InvokeOptions) -> list[str]:
    """Return up to availabilityZoneCount zones that offer the preferred GPU instance type.

    Raises:
        ValueError: no zone of the region offers it.
    """
    preferred = settings.gpu_instance_types[0]
    offers = aws.ec2.get_instance_type_offerings(
        filters=[{"name": "instance-type", "values": [preferred]}],
        location_type="availability-zone",
        opts=opts,
    )
    zones = sorted(set(offers.locations))
    if not zones:
        raise ValueError(f"no zone of this region offers {preferred}: change gpuInstanceTypes or the region")
    return zones[: settings.availability_zone_count]


class Network(Component):
    """VPC, subnets, routes and endpoints."""

    def __init__(self, name: str, context: StackContext, zones: Sequence[str]) -> None:
        super().__init__("network:Network", name, context)
        names, settings = context.names, context.settings
        self._cidr_blocks = list(ipaddress.IPv4Network(settings.vpc_cidr).subnets(new_prefix=SUBNET_PREFIX))
        self.vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=settings.vpc_cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags={"Name": names.prefix},
            opts=self._child,
        )
        # Remove all rules from the default security group.
        aws.ec2.DefaultSecurityGroup(f"{name}-default-group", vpc_id=self.vpc.id, opts=self._child)
        subnets = [
            self._create_subnet(f"subnet-{index}", f"private-{zone}", zone, self._cidr_blocks[index])
            for index, zone in enumerate(zones)
        ]
        self.subnet_ids = [subnet.id for subnet in subnets]
        self.route_table = aws.ec2.RouteTable(
            f"{name}-routes", vpc_id=self.vpc.id, tags={"Name": f"{names.prefix}-private"}, opts=self._child
        )
        for index, subnet_id in enumerate(self.subnet_ids):
            self._associate_routes(f"route-{index}", subnet_id, self.route_table.id)
        self.gateway_endpoints = {
            service: self._create_endpoint(
                service, "gateway", vpc_endpoint_type="Gateway", route_table_ids=[self.route_table.id]
            )
            for service in GATEWAY_ENDPOINTS
        }
        self.endpoint_group: aws.ec2.SecurityGroup | None = None
        if settings.nat_gateway:
            self._add_nat(zones[0])
        else:
            self._add_interface_endpoints()
        if settings.flow_logs:
            self._add_flow_logs()
        self.register_outputs({"vpc_id": self.vpc.id})

    def _create_subnet(
        self, role: str, label: str, zone: str, cidr_block: ipaddress.IPv4Network
    ) -> aws.ec2.Subnet:
        return aws.ec2.Subnet(
            f"{self._name}-{role}",
            vpc_id=self.vpc.id,
            availability_zone=zone,
            cidr_block=str(cidr_block),
            map_public_ip_on_launch=False,
            tags={"Name": f"{self._names.prefix}-{label}"},
            opts=self._child,
        )

    def _associate_routes(self, role: str, subnet: pulumi.Input[str], table: pulumi.Input[str]) -> None:
        aws.ec2.RouteTableAssociation(
            f"{self._name}-{role}", subnet_id=subnet, route_table_id=table, opts=self._child
        )

    def _create_endpoint(self, service: str, role: str, **options: Any) -> aws.ec2.VpcEndpoint:
        return aws.ec2.VpcEndpoint(
            f"{self._name}-{service}-{role}",
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{self._names.region}.{service}",
            tags={"Name": f"{self._names.prefix}-{service}"},
            opts=self._child,
            **options,
        )

    def _add_interface_endpoints(self) -> None:
        self.endpoint_group = create_security_group(
            f"{self._name}-endpoints", self.vpc.id, "endpoints of AWS services", self._child
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{self._name}-endpoints-in",
            security_group_id=self.endpoint_group.id,
            description="HTTPS from the VPC",
            cidr_ipv4=self._settings.vpc_cidr,
            opts=self._child,
            **_tcp(HTTPS_PORT),
        )
        services = INTERFACE_ENDPOINTS + (SESSION_MANAGER_ENDPOINTS if self._settings.session_manager else ())
        for service in services:
            self._create_endpoint(
                service,
                "endpoint",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=self.subnet_ids[: self._settings.endpoint_zone_count],
                security_group_ids=[self.endpoint_group.id],
            )

    def _add_nat(self, zone: str) -> None:
        """Add a NAT gateway in a public subnet, and routes through it."""
        internet = aws.ec2.InternetGateway(
            f"{self._name}-internet",
            vpc_id=self.vpc.id,
            tags={"Name": self._names.prefix},
            opts=self._child,
        )
        public = self._create_subnet("public", f"public-{zone}", zone, self._cidr_blocks[-1])
        public_routes = aws.ec2.RouteTable(
            f"{self._name}-public-routes",
            vpc_id=self.vpc.id,
            tags={"Name": f"{self._names.prefix}-public"},
            opts=self._child,
        )
        self._associate_routes("public-route", public.id, public_routes.id)
        self._add_default_route("public-out", public_routes.id, gateway_id=internet.id)
        address = aws.ec2.Eip(
            f"{self._name}-nat-address",
            domain="vpc",
            tags={"Name": f"{self._names.prefix}-nat"},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[internet]),
        )
        nat = aws.ec2.NatGateway(
            f"{self._name}-nat",
            allocation_id=address.id,
            subnet_id=public.id,
            tags={"Name": self._names.prefix},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[internet]),
        )
        self._add_default_route("private-out", self.route_table.id, nat_gateway_id=nat.id)

    def _add_default_route(self, role: str, table: pulumi.Input[str], **target: pulumi.Input[str]) -> None:
        aws.ec2.Route(
            f"{self._name}-{role}",
            route_table_id=table,
            destination_cidr_block="0.0.0.0/0",
            opts=self._child,
            **target,
        )

    def _add_flow_logs(self) -> None:
        group = self._create_log_group("refused", f"/gorggle/{self._names.stack}/network")
        writer = iam.ServiceRole(
            f"{self._names.prefix}-flow-logs",
            "vpc-flow-logs.amazonaws.com",
            [iam.log_write_grant(group.arn)],
            conditions=iam.source_account_condition(self._names.account),
            opts=self._child,
        )
        aws.ec2.FlowLog(
            f"{self._name}-flow-log",
            vpc_id=self.vpc.id,
            traffic_type="REJECT",
            log_destination=group.arn,
            iam_role_arn=writer.arn,
            opts=self._child,
        )


def create_security_group(
    name: str, vpc_id: pulumi.Input[str], description: str, opts: pulumi.ResourceOptions
) -> aws.ec2.SecurityGroup:
    """Create a security group without rules; rules are separate resources."""
    return aws.ec2.SecurityGroup(
        f"{name}-group", vpc_id=vpc_id, description=description, tags={"Name": name}, opts=opts
    )


def allow_traffic(
    name: str,
    source: aws.ec2.SecurityGroup,
    target: aws.ec2.SecurityGroup,
    port: int,
    description: str,
    opts: pulumi.ResourceOptions,
) -> None:
    """Allow TCP connections between two security groups on one port: egress and ingress."""
    for rule, role, group, other in (
        (aws.vpc.SecurityGroupEgressRule, "out", source, target),
        (aws.vpc.SecurityGroupIngressRule, "in", target, source),
    ):
        rule(
            f"{name}-{role}",
            security_group_id=group.id,
            referenced_security_group_id=other.id,
            description=description,
            opts=opts,
            **_tcp(port),
        )


def allow_aws_apis(
    name: str, source: aws.ec2.SecurityGroup, network: Network, opts: pulumi.ResourceOptions
) -> None:
    """Allow HTTPS to AWS services, through the endpoints or the NAT gateway."""
    targets: dict[str, dict[str, pulumi.Input[str]]] = {
        service: {"prefix_list_id": gateway.prefix_list_id}
        for service, gateway in network.gateway_endpoints.items()
    }
    if network.endpoint_group is None:
        # Through a NAT gateway AWS has arbitrary public addresses.
        targets["internet"] = {"cidr_ipv4": "0.0.0.0/0"}
    else:
        targets["endpoints"] = {"referenced_security_group_id": network.endpoint_group.id}
    for role, target in targets.items():
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-to-{role}",
            security_group_id=source.id,
            description=f"HTTPS to {role}",
            opts=opts,
            **_tcp(HTTPS_PORT),
            **target,
        )


def _tcp(port: int) -> dict[str, Any]:
    return {"ip_protocol": "tcp", "from_port": port, "to_port": port}
