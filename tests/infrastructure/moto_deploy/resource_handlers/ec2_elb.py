"""Networks, endpoints, security groups and load balancers."""

from __future__ import annotations

from typing import Any

from tests.infrastructure.moto_deploy.pulumi_engine import Resource
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    CallGenerator,
    Inputs,
    assert_consumed,
    build_arn,
    call,
    convert_call,
    ec2_tags,
    handles,
    pop_inputs,
    tag_list,
)


@handles("ec2/vpc:Vpc")
def vpc(resource: Resource, inputs: Inputs) -> CallGenerator:
    hostnames, support, tags = pop_inputs(inputs, "enableDnsHostnames", "enableDnsSupport", "tags")
    result = yield convert_call("ec2.CreateVpc", inputs, **ec2_tags("vpc")(tags))
    identity = result["Vpc"]["VpcId"]
    yield call("ec2.ModifyVpcAttribute", VpcId=identity, EnableDnsSupport={"Value": support})
    yield call("ec2.ModifyVpcAttribute", VpcId=identity, EnableDnsHostnames={"Value": hostnames})
    return identity, {"arn": build_arn("ec2", f"vpc/{identity}")}


@handles("ec2/defaultSecurityGroup:DefaultSecurityGroup")
def default_group(resource: Resource, inputs: Inputs) -> CallGenerator:
    network, _tags = pop_inputs(inputs, "vpcId", "tags")
    assert_consumed(inputs)
    filters = [{"Name": "vpc-id", "Values": [network]}, {"Name": "group-name", "Values": ["default"]}]
    result = yield call("ec2.DescribeSecurityGroups", Filters=filters)
    group = result["SecurityGroups"][0]
    for operation, rules in (("Ingress", group["IpPermissions"]), ("Egress", group["IpPermissionsEgress"])):
        if rules:
            yield call(f"ec2.RevokeSecurityGroup{operation}", GroupId=group["GroupId"], IpPermissions=rules)
    return group["GroupId"], {}


@handles("ec2/subnet:Subnet")
def subnet(resource: Resource, inputs: Inputs) -> CallGenerator:
    public, tags = pop_inputs(inputs, "mapPublicIpOnLaunch", "tags")
    result = yield convert_call("ec2.CreateSubnet", inputs, **ec2_tags("subnet")(tags))
    identity = result["Subnet"]["SubnetId"]
    yield call("ec2.ModifySubnetAttribute", SubnetId=identity, MapPublicIpOnLaunch={"Value": public})
    return identity, {}


@handles("ec2/internetGateway:InternetGateway")
def internet_gateway(resource: Resource, inputs: Inputs) -> CallGenerator:
    network, tags = pop_inputs(inputs, "vpcId", "tags")
    assert_consumed(inputs)
    result = yield call("ec2.CreateInternetGateway", **ec2_tags("internet-gateway")(tags))
    identity = result["InternetGateway"]["InternetGatewayId"]
    yield call("ec2.AttachInternetGateway", InternetGatewayId=identity, VpcId=network)
    return identity, {}


@handles("ec2/vpcEndpoint:VpcEndpoint")
def endpoint(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    result = yield convert_call("ec2.CreateVpcEndpoint", inputs, **ec2_tags("vpc-endpoint")(tags))
    identity = result["VpcEndpoint"]["VpcEndpointId"]
    if inputs["vpcEndpointType"] != "Gateway":
        return identity, {}
    filters = [{"Name": "prefix-list-name", "Values": [inputs["serviceName"]]}]
    result = yield call("ec2.DescribeManagedPrefixLists", Filters=filters)
    return identity, {"prefixListId": result["PrefixLists"][0]["PrefixListId"]}


@handles("ec2/securityGroup:SecurityGroup")
def security_group(resource: Resource, inputs: Inputs) -> CallGenerator:
    (tags,) = pop_inputs(inputs, "tags")
    result = yield convert_call(
        "ec2.CreateSecurityGroup", inputs, GroupName=resource.name, **ec2_tags("security-group")(tags)
    )
    identity = result["GroupId"]
    # EC2 lets a new group call everything; the provider takes that rule away.
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    yield call("ec2.RevokeSecurityGroupEgress", GroupId=identity, IpPermissions=everything)
    return identity, {"arn": build_arn("ec2", f"security-group/{identity}")}


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
    result = yield call(
        f"ec2.AuthorizeSecurityGroup{direction}",
        GroupId=group,
        IpPermissions=[permission],
        **ec2_tags("security-group-rule")(tags),
    )
    return result["SecurityGroupRules"][0]["SecurityGroupRuleId"], {}


@handles("lb/loadBalancer:LoadBalancer")
def load_balancer(resource: Resource, inputs: Inputs) -> CallGenerator:
    internal, cross_zone, tags = pop_inputs(inputs, "internal", "enableCrossZoneLoadBalancing", "tags")
    result = yield convert_call(
        "elbv2.CreateLoadBalancer",
        inputs,
        {"loadBalancerType": "type"},
        Scheme="internal" if internal else "internet-facing",
        Tags=tag_list(tags),
    )
    result = result["LoadBalancers"][0]
    attributes = [{"Key": "load_balancing.cross_zone.enabled", "Value": str(bool(cross_zone)).lower()}]
    yield call(
        "elbv2.ModifyLoadBalancerAttributes", LoadBalancerArn=result["LoadBalancerArn"], Attributes=attributes
    )
    arn = result["LoadBalancerArn"]
    return arn, {"arn": arn, "dnsName": result["DNSName"], "arnSuffix": _arn_suffix(arn, "loadbalancer/")}


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
    result = yield convert_call(
        "elbv2.CreateTargetGroup", {**inputs, **checks}, Matcher=matcher, Tags=tag_list(tags)
    )
    arn = result["TargetGroups"][0]["TargetGroupArn"]
    attributes = [{"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}]
    yield call("elbv2.ModifyTargetGroupAttributes", TargetGroupArn=arn, Attributes=attributes)
    return arn, {"arn": arn, "arnSuffix": arn.rpartition(":")[2]}


@handles("lb/listener:Listener")
def listener(resource: Resource, inputs: Inputs) -> CallGenerator:
    idle, tags = pop_inputs(inputs, "tcpIdleTimeoutSeconds", "tags")
    result = yield convert_call("elbv2.CreateListener", inputs, Tags=tag_list(tags))
    arn = result["Listeners"][0]["ListenerArn"]
    attributes = [{"Key": "tcp.idle_timeout.seconds", "Value": str(idle)}]
    yield call("elbv2.ModifyListenerAttributes", ListenerArn=arn, Attributes=attributes)
    return arn, {"arn": arn}


def _arn_suffix(arn: str, prefix: str) -> str:
    return arn.rpartition(":")[2].removeprefix(prefix)
