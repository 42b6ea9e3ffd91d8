"""VPC with private subnets in the zones that offer the GPU instance type.

It accepts no traffic from the internet. Without a NAT gateway it has no access to the internet either: AWS services are
reached through gateway endpoints (S3, DynamoDB) and interface endpoints.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.config import StackSettings
from infrastructure.naming import Names

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


class Network(pulumi.ComponentResource):
    """VPC, subnets, routes and endpoints."""

    def __init__(
        self,
        name: str,
        names: Names,
        settings: StackSettings,
        zones: Sequence[str],
        key_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gorggle:network:Network", name, None, opts)
        self._name, self._names, self._settings = name, names, settings
        self._child = pulumi.ResourceOptions(parent=self)
        self._cidr_blocks = list(ipaddress.ip_network(settings.vpc_cidr).subnets(new_prefix=SUBNET_PREFIX))
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
        self.subnets = [self._create_subnet(index, zone) for index, zone in enumerate(zones)]
        self.subnet_ids = [subnet.id for subnet in self.subnets]
        self.route_table = aws.ec2.RouteTable(
            f"{name}-routes", vpc_id=self.vpc.id, tags={"Name": f"{names.prefix}-private"}, opts=self._child
        )
        for index, subnet in enumerate(self.subnets):
            aws.ec2.RouteTableAssociation(
                f"{name}-route-{index}",
                subnet_id=subnet.id,
                route_table_id=self.route_table.id,
                opts=self._child,
            )
        self.gateway_endpoints = {
            service: self._create_gateway_endpoint(service) for service in GATEWAY_ENDPOINTS
        }
        self.endpoint_group: aws.ec2.SecurityGroup | None = None
        if settings.nat_gateway:
            self._add_nat(zones[0])
        else:
            self._add_interface_endpoints()
        if settings.flow_logs:
            self._add_flow_logs(key_arn)
        self.register_outputs({"vpc_id": self.vpc.id})

    def _create_subnet(self, index: int, zone: str) -> aws.ec2.Subnet:
        return aws.ec2.Subnet(
            f"{self._name}-subnet-{index}",
            vpc_id=self.vpc.id,
            availability_zone=zone,
            cidr_block=str(self._cidr_blocks[index]),
            map_public_ip_on_launch=False,
            tags={"Name": f"{self._names.prefix}-private-{zone}"},
            opts=self._child,
        )

    def _create_gateway_endpoint(self, service: str) -> aws.ec2.VpcEndpoint:
        return aws.ec2.VpcEndpoint(
            f"{self._name}-{service}-gateway",
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{self._names.region}.{service}",
            vpc_endpoint_type="Gateway",
            route_table_ids=[self.route_table.id],
            tags={"Name": f"{self._names.prefix}-{service}"},
            opts=self._child,
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
            ip_protocol="tcp",
            from_port=HTTPS_PORT,
            to_port=HTTPS_PORT,
            opts=self._child,
        )
        services = INTERFACE_ENDPOINTS + (SESSION_MANAGER_ENDPOINTS if self._settings.session_manager else ())
        for service in services:
            aws.ec2.VpcEndpoint(
                f"{self._name}-{service}-endpoint",
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{self._names.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=self.subnet_ids[: self._settings.endpoint_zone_count],
                security_group_ids=[self.endpoint_group.id],
                tags={"Name": f"{self._names.prefix}-{service}"},
                opts=self._child,
            )

    def _add_nat(self, zone: str) -> None:
        """Add a NAT gateway in a public subnet, and routes through it."""
        internet = aws.ec2.InternetGateway(
            f"{self._name}-internet",
            vpc_id=self.vpc.id,
            tags={"Name": self._names.prefix},
            opts=self._child,
        )
        public = aws.ec2.Subnet(
            f"{self._name}-public",
            vpc_id=self.vpc.id,
            availability_zone=zone,
            cidr_block=str(self._cidr_blocks[-1]),
            map_public_ip_on_launch=False,
            tags={"Name": f"{self._names.prefix}-public-{zone}"},
            opts=self._child,
        )
        public_routes = aws.ec2.RouteTable(
            f"{self._name}-public-routes",
            vpc_id=self.vpc.id,
            tags={"Name": f"{self._names.prefix}-public"},
            opts=self._child,
        )
        aws.ec2.RouteTableAssociation(
            f"{self._name}-public-route",
            subnet_id=public.id,
            route_table_id=public_routes.id,
            opts=self._child,
        )
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

    def _add_flow_logs(self, key_arn: pulumi.Input[str]) -> None:
        group = aws.cloudwatch.LogGroup(
            f"{self._name}-refused",
            name=f"/gorggle/{self._names.stack}/network",
            retention_in_days=self._settings.log_retention_days,
            kms_key_id=key_arn,
            opts=self._child,
        )
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
    aws.vpc.SecurityGroupEgressRule(
        f"{name}-out",
        security_group_id=source.id,
        referenced_security_group_id=target.id,
        description=description,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        opts=opts,
    )
    aws.vpc.SecurityGroupIngressRule(
        f"{name}-in",
        security_group_id=target.id,
        referenced_security_group_id=source.id,
        description=description,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        opts=opts,
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
            ip_protocol="tcp",
            from_port=HTTPS_PORT,
            to_port=HTTPS_PORT,
            opts=opts,
            **target,
        )
