"""Networks, endpoints, security groups and load balancers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gorggle_local.aws.pulumi_engine import Resource
from gorggle_local.aws.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    call,
    convert_call,
    handles,
    pop_inputs,
    tag_list,
)


def tag_specifications(kind: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Tags as EC2 takes them when something is made."""
    return [{"ResourceType": kind, "Tags": tag_list(tags)}]


@handles("ec2/vpc:Vpc")
def vpc(resource: Resource, inputs: Inputs) -> CallGenerator:
    hostnames, support, tags = pop_inputs(inputs, "enableDnsHostnames", "enableDnsSupport", "tags")
    made = yield convert_call("ec2.CreateVpc", inputs, TagSpecifications=tag_specifications("vpc", tags))
    identity = made["Vpc"]["VpcId"]
    yield call("ec2.ModifyVpcAttribute", VpcId=identity, EnableDnsSupport={"Value": support})
    yield call("ec2.ModifyVpcAttribute", VpcId=identity, EnableDnsHostnames={"Value": hostnames})
    return identity, {"arn": f"arn:aws:ec2:us-east-1:123456789012:vpc/{identity}"}


@handles("ec2/defaultSecurityGroup:DefaultSecurityGroup")
def default_group(resource: Resource, inputs: Inputs) -> CallGenerator:
    network, _tags = pop_inputs(inputs, "vpcId", "tags")
    assert_consumed(inputs)
    wanted = [{"Name": "vpc-id", "Values": [network]}, {"Name": "group-name", "Values": ["default"]}]
    found = yield call("ec2.DescribeSecurityGroups", Filters=wanted)
    group = found["SecurityGroups"][0]
    for operation, rules in (("Ingress", group["IpPermissions"]), ("Egress", group["IpPermissionsEgress"])):
        if rules:
            yield call(f"ec2.RevokeSecurityGroup{operation}", GroupId=group["GroupId"], IpPermissions=rules)
    return group["GroupId"], {}


@handles("ec2/subnet:Subnet")
def subnet(resource: Resource, inputs: Inputs) -> CallGenerator:
    public, tags = pop_inputs(inputs, "mapPublicIpOnLaunch", "tags")
    made = yield convert_call(
        "ec2.CreateSubnet", inputs, TagSpecifications=tag_specifications("subnet", tags)
    )
    identity = made["Subnet"]["SubnetId"]
    yield call("ec2.ModifySubnetAttribute", SubnetId=identity, MapPublicIpOnLaunch={"Value": public})
    return identity, {}


@handles("ec2/routeTable:RouteTable")
def route_table(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call(
        "ec2.CreateRouteTable", inputs, TagSpecifications=tag_specifications("route-table", tags)
    )
    return made["RouteTable"]["RouteTableId"], {}


@handles("ec2/routeTableAssociation:RouteTableAssociation")
def association(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    made = yield convert_call("ec2.AssociateRouteTable", inputs)
    return made["AssociationId"], {}


@handles("ec2/route:Route")
def route(resource: Resource, inputs: Inputs) -> CallGenerator:
    del inputs["tags"]
    yield convert_call("ec2.CreateRoute", inputs)
    return f"{inputs['routeTableId']}_{inputs['destinationCidrBlock']}", {}


@handles("ec2/internetGateway:InternetGateway")
def internet_gateway(resource: Resource, inputs: Inputs) -> CallGenerator:
    network, tags = pop_inputs(inputs, "vpcId", "tags")
    assert_consumed(inputs)
    made = yield call(
        "ec2.CreateInternetGateway", TagSpecifications=tag_specifications("internet-gateway", tags)
    )
    identity = made["InternetGateway"]["InternetGatewayId"]
    yield call("ec2.AttachInternetGateway", InternetGatewayId=identity, VpcId=network)
    return identity, {}


@handles("ec2/eip:Eip")
def address(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call(
        "ec2.AllocateAddress", inputs, TagSpecifications=tag_specifications("elastic-ip", tags)
    )
    return made["AllocationId"], {"allocationId": made["AllocationId"], "publicIp": made["PublicIp"]}


@handles("ec2/natGateway:NatGateway")
def nat_gateway(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call(
        "ec2.CreateNatGateway", inputs, TagSpecifications=tag_specifications("natgateway", tags)
    )
    return made["NatGateway"]["NatGatewayId"], {}


@handles("ec2/vpcEndpoint:VpcEndpoint")
def endpoint(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call(
        "ec2.CreateVpcEndpoint", inputs, TagSpecifications=tag_specifications("vpc-endpoint", tags)
    )
    identity = made["VpcEndpoint"]["VpcEndpointId"]
    if inputs["vpcEndpointType"] != "Gateway":
        return identity, {}
    wanted = [{"Name": "prefix-list-name", "Values": [inputs["serviceName"]]}]
    found = yield call("ec2.DescribeManagedPrefixLists", Filters=wanted)
    return identity, {"prefixListId": found["PrefixLists"][0]["PrefixListId"]}


@handles("ec2/securityGroup:SecurityGroup")
def security_group(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    made = yield convert_call(
        "ec2.CreateSecurityGroup",
        inputs,
        GroupName=resource.name,
        TagSpecifications=tag_specifications("security-group", tags),
    )
    identity = made["GroupId"]
    # EC2 lets a new group call everything; the provider takes that rule away.
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    yield call("ec2.RevokeSecurityGroupEgress", GroupId=identity, IpPermissions=everything)
    return identity, {"arn": f"arn:aws:ec2:us-east-1:123456789012:security-group/{identity}"}


@handles("vpc/securityGroupIngressRule:SecurityGroupIngressRule")
def ingress(resource: Resource, inputs: Inputs) -> CallGenerator:
    return (yield from _authorize_rule("Ingress", inputs))


@handles("vpc/securityGroupEgressRule:SecurityGroupEgressRule")
def egress(resource: Resource, inputs: Inputs) -> CallGenerator:
    return (yield from _authorize_rule("Egress", inputs))


def _authorize_rule(direction: str, inputs: Inputs) -> CallGenerator:
    group, what, tags = pop_inputs(inputs, "securityGroupId", "description", "tags")
    protocol, first, last = pop_inputs(inputs, "ipProtocol", "fromPort", "toPort")
    permission: dict[str, Any] = {"IpProtocol": protocol, "FromPort": first, "ToPort": last}
    sources = {
        "cidrIpv4": ("IpRanges", "CidrIp"),
        "prefixListId": ("PrefixListIds", "PrefixListId"),
        "referencedSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    }
    for name, (member, inner) in sources.items():
        if name in inputs:
            permission[member] = [{inner: inputs.pop(name), "Description": what}]
    assert_consumed(inputs)
    made = yield call(
        f"ec2.AuthorizeSecurityGroup{direction}",
        GroupId=group,
        IpPermissions=[permission],
        TagSpecifications=tag_specifications("security-group-rule", tags),
    )
    return made["SecurityGroupRules"][0]["SecurityGroupRuleId"], {}


@handles("ec2/flowLog:FlowLog")
def flow_log(resource: Resource, inputs: Inputs) -> CallGenerator:
    network, tags = pop_inputs(inputs, "vpcId", "tags")
    made = yield convert_call(
        "ec2.CreateFlowLogs",
        inputs,
        {"iamRoleArn": "deliverLogsPermissionArn"},
        ResourceIds=[network],
        ResourceType="VPC",
        LogDestinationType="cloud-watch-logs",
        TagSpecifications=tag_specifications("vpc-flow-log", tags),
    )
    return made["FlowLogIds"][0], {}


@handles("lb/loadBalancer:LoadBalancer")
def load_balancer(resource: Resource, inputs: Inputs) -> CallGenerator:
    internal, cross_zone, tags = pop_inputs(inputs, "internal", "enableCrossZoneLoadBalancing", "tags")
    made = yield convert_call(
        "elbv2.CreateLoadBalancer",
        inputs,
        {"loadBalancerType": "type"},
        Scheme="internal" if internal else "internet-facing",
        Tags=tag_list(tags),
    )
    found = made["LoadBalancers"][0]
    attributes = [{"Key": "load_balancing.cross_zone.enabled", "Value": str(bool(cross_zone)).lower()}]
    yield call(
        "elbv2.ModifyLoadBalancerAttributes", LoadBalancerArn=found["LoadBalancerArn"], Attributes=attributes
    )
    arn = found["LoadBalancerArn"]
    return arn, {"arn": arn, "dnsName": found["DNSName"], "arnSuffix": _arn_suffix(arn, "loadbalancer/")}


@handles("lb/targetGroup:TargetGroup")
def target_group(resource: Resource, inputs: Inputs) -> CallGenerator:
    delay, check, tags = pop_inputs(inputs, "deregistrationDelay", "healthCheck", "tags")
    words = {
        "protocol": "healthCheckProtocol",
        "port": "healthCheckPort",
        "path": "healthCheckPath",
        "interval": "healthCheckIntervalSeconds",
        "timeout": "healthCheckTimeoutSeconds",
        "healthyThreshold": "healthyThresholdCount",
        "unhealthyThreshold": "unhealthyThresholdCount",
    }
    matcher = {"HttpCode": check.pop("matcher")}
    checks = {words[name]: value for name, value in check.items()}
    made = yield convert_call(
        "elbv2.CreateTargetGroup", {**inputs, **checks}, Matcher=matcher, Tags=tag_list(tags)
    )
    arn = made["TargetGroups"][0]["TargetGroupArn"]
    attributes = [{"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}]
    yield call("elbv2.ModifyTargetGroupAttributes", TargetGroupArn=arn, Attributes=attributes)
    return arn, {"arn": arn, "arnSuffix": arn.rpartition(":")[2]}


@handles("lb/listener:Listener")
def listener(resource: Resource, inputs: Inputs) -> CallGenerator:
    idle, tags = pop_inputs(inputs, "tcpIdleTimeoutSeconds", "tags")
    made = yield convert_call("elbv2.CreateListener", inputs, Tags=tag_list(tags))
    arn = made["Listeners"][0]["ListenerArn"]
    attributes = [{"Key": "tcp.idle_timeout.seconds", "Value": str(idle)}]
    yield call("elbv2.ModifyListenerAttributes", ListenerArn=arn, Attributes=attributes)
    return arn, {"arn": arn}


def _arn_suffix(arn: str, prefix: str) -> str:
    return arn.rpartition(":")[2].removeprefix(prefix)
