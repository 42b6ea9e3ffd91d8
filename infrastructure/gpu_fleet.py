"""Auto Scaling group of GPU servers, from gpuMinInstances (0 by default) to gpuMaxInstances."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infrastructure import iam
from infrastructure.component import Component, StackContext
from infrastructure.config import StackSettings
from infrastructure.load_balancer import HTTP_PORT, SERVER_PORT, LoadBalancer
from infrastructure.naming import Names
from infrastructure.network import Network

LAUNCH_HOOK, TERMINATE_HOOK = "ready", "drain"
# From launch to ready: boot, 350 MB of packages, model, warm-up. Slower instances are terminated.
START_TIMEOUT_S = 900
# Replace instances regularly, so that they have current packages.
MAX_INSTANCE_LIFETIME_S = 14 * 24 * 3600
EC2_SERVICE = "ec2.amazonaws.com"
GROUP_METRICS = ("GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances")


class GpuFleet(Component):
    """Role, launch template and Auto Scaling group of the servers."""

    def __init__(
        self,
        name: str,
        context: StackContext,
        network: Network,
        balancer: LoadBalancer,
        bundle: tuple[pulumi.Output[str], pulumi.Output[str]],
        certificate_secret: pulumi.Output[str],
    ) -> None:
        """``bundle``: bucket and key of the server bundle; ``certificate_secret``: ARN of the server's certificate."""
        super().__init__("gpu_fleet:GpuFleet", name, context)
        self._bundle_location, self._certificate_secret = bundle, certificate_secret
        self.log_group = self._create_log_group("logs", f"/gorggle/{self._names.stack}/server")
        self.role = iam.ServiceRole(
            self._names.resource("server"), EC2_SERVICE, self._build_grants(), opts=self._child
        )
        self.template = self._create_launch_template(balancer)
        self.group = self._create_group(network, balancer)
        self._schedule_warm_hours()
        self.register_outputs({"group": self.group.name})

    def _build_grants(self) -> list[iam.Grant]:
        bucket, key = self._bundle_location
        bundle_arn = pulumi.Output.concat("arn:", self._names.partition, ":s3:::", bucket, "/", key)
        grants = [
            iam.Grant(("s3:GetObject",), [bundle_arn]),
            iam.Grant(("secretsmanager:GetSecretValue",), [self._certificate_secret]),
            iam.Grant(("autoscaling:CompleteLifecycleAction",), [self._names.fleet_arn]),
            iam.log_write_grant(self.log_group.arn),
            iam.Grant(
                ("cloudwatch:PutMetricData",),
                ["*"],
                {"StringEquals": {"cloudwatch:namespace": self._names.metrics_namespace}},
                reason="PutMetricData has no resources; the condition limits the namespace",
            ),
        ]
        if self._settings.session_manager:
            grants.append(SESSION_MANAGER_GRANT)
        if model := self._settings.model_object:
            address = self._names.arn("s3", "/".join(model), region=False, account=False)
            grants.append(iam.Grant(("s3:GetObject",), [address]))
        return grants

    def _create_launch_template(self, balancer: LoadBalancer) -> aws.ec2.LaunchTemplate:
        profile = aws.iam.InstanceProfile(
            f"{self._name}-profile",
            name=self._names.resource("server"),
            role=self.role.role.name,
            opts=self._child,
        )
        image = aws.ssm.get_parameter_output(
            name=self._settings.gpu_ami_parameter, opts=pulumi.InvokeOutputOptions(parent=self)
        )
        tags = instance_tags(self._names, self._settings)
        return aws.ec2.LaunchTemplate(
            f"{self._name}-template",
            name=self._names.resource("server"),
            image_id=image.value,
            instance_type=self._settings.gpu_instance_types[0],
            iam_instance_profile={"arn": profile.arn},
            vpc_security_group_ids=[balancer.servers_group.id],
            user_data=self._encode_user_data(),
            update_default_version=True,
            ebs_optimized="true",
            # IMDSv2 only, not reachable from containers: a forged request cannot read the role's credentials.
            metadata_options={
                "http_endpoint": "enabled",
                "http_tokens": "required",
                "http_put_response_hop_limit": 1,
            },
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    "ebs": {
                        "volume_size": self._settings.gpu_volume_size_gib,
                        "volume_type": "gp3",
                        "encrypted": "true",
                        "delete_on_termination": "true",
                    },
                }
            ],
            # Default tags do not apply to what is launched from the template.
            tag_specifications=[
                {"resource_type": kind, "tags": tags} for kind in ("instance", "volume", "network-interface")
            ],
            opts=self._child,
        )

    def _encode_user_data(self) -> pulumi.Output[str]:
        bucket, key = self._bundle_location
        return pulumi.Output.all(bucket, key, self._certificate_secret, self.log_group.name).apply(
            lambda args: base64.b64encode(
                render_user_data(self._names, self._settings, *args).encode()
            ).decode()
        )

    def _create_group(self, network: Network, balancer: LoadBalancer) -> aws.autoscaling.Group:
        settings = self._settings
        tags = instance_tags(self._names, settings)
        template = {
            "launch_template_id": self.template.id,
            "version": self.template.latest_version.apply(str),
        }
        return aws.autoscaling.Group(
            f"{self._name}-group",
            name=self._names.fleet,
            min_size=settings.gpu_min_instances,
            max_size=settings.gpu_max_instances,
            desired_capacity=settings.gpu_min_instances,
            vpc_zone_identifiers=network.subnet_ids,
            target_group_arns=[balancer.target_group.arn],
            health_check_type="ELB",
            health_check_grace_period=START_TIMEOUT_S,
            default_instance_warmup=60,
            max_instance_lifetime=MAX_INSTANCE_LIFETIME_S,
            # Replace spot instances before they are interrupted.
            capacity_rebalance=settings.gpu_on_demand_percent < 100,
            wait_for_capacity_timeout="0",
            enabled_metrics=list(GROUP_METRICS),
            mixed_instances_policy={
                "launch_template": {
                    "launch_template_specification": template,
                    "overrides": [{"instance_type": kind} for kind in settings.gpu_instance_types],
                },
                "instances_distribution": {
                    "on_demand_base_capacity": 0,
                    "on_demand_percentage_above_base_capacity": settings.gpu_on_demand_percent,
                    "on_demand_allocation_strategy": "prioritized",
                    "spot_allocation_strategy": "price-capacity-optimized",
                },
            },
            initial_lifecycle_hooks=[
                {
                    "name": LAUNCH_HOOK,
                    "lifecycle_transition": "autoscaling:EC2_INSTANCE_LAUNCHING",
                    "heartbeat_timeout": START_TIMEOUT_S,
                    "default_result": "ABANDON",
                },
                {
                    "name": TERMINATE_HOOK,
                    "lifecycle_transition": "autoscaling:EC2_INSTANCE_TERMINATING",
                    "heartbeat_timeout": settings.gpu_drain_minutes * 60 + 120,
                    "default_result": "CONTINUE",
                },
            ],
            instance_refresh={
                "strategy": "Rolling",
                "preferences": {"min_healthy_percentage": 100, "max_healthy_percentage": 200},
            },
            tags=[{"key": key, "value": value, "propagate_at_launch": False} for key, value in tags.items()],
            # Set by the pipeline and the scaling policies.
            opts=pulumi.ResourceOptions(
                parent=self,
                ignore_changes=["desiredCapacity"],
                depends_on=[self.role.policy, balancer.listener],
            ),
        )

    def _schedule_warm_hours(self) -> None:
        """Keep one instance during the hours of gpuWarmStart and gpuWarmEnd, if set."""
        hours = {"warm": (self._settings.gpu_warm_start, max(1, self._settings.gpu_min_instances))}
        hours["cool"] = (self._settings.gpu_warm_end, self._settings.gpu_min_instances)
        for role, (recurrence, min_size) in hours.items():
            if recurrence:
                aws.autoscaling.Schedule(
                    f"{self._name}-{role}",
                    scheduled_action_name=self._names.resource(role),
                    autoscaling_group_name=self.group.name,
                    recurrence=recurrence,
                    min_size=min_size,
                    max_size=-1,  # -1: unchanged
                    desired_capacity=-1,
                    opts=self._child,
                )


# The minimum permissions of Session Manager's agent:
# https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
SESSION_MANAGER_GRANT = iam.Grant(
    (
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    ),
    ["*"],
    reason="Session Manager's channels have no ARNs",
)


def instance_tags(names: Names, settings: StackSettings) -> dict[str, str]:
    """Return the tags of instances and their volumes: the stack's tags and a name."""
    return {**settings.tag_map, "gorggle:stack": names.stack, "Name": names.fleet}


def instance_environment(
    names: Names, settings: StackSettings, bucket: str, key: str, secret: str, log_group: str
) -> Mapping[str, str]:
    """Return the environment variables of ``bootstrap.sh``."""
    return {
        "AWS_DEFAULT_REGION": names.region,
        "GORGGLE_BUNDLE": f"s3://{bucket}/{key}",
        "GORGGLE_MODEL_URI": settings.model_uri,
        "GORGGLE_FLEET": names.fleet,
        "GORGGLE_LAUNCH_HOOK": LAUNCH_HOOK,
        "GORGGLE_TERMINATE_HOOK": TERMINATE_HOOK,
        "GORGGLE_CERTIFICATE_SECRET": secret,
        "GORGGLE_METRICS_NAMESPACE": names.metrics_namespace,
        "GORGGLE_LOG_GROUP": log_group,
        "GORGGLE_SERVER_PORT": str(SERVER_PORT),
        "GORGGLE_HTTP_PORT": str(HTTP_PORT),
        "GORGGLE_STREAMS": str(settings.gpu_max_streams),
        "GORGGLE_DRAIN_S": str(settings.gpu_drain_minutes * 60),
        "GORGGLE_LOG_LEVEL": settings.log_level,
    }


def render_user_data(
    names: Names, settings: StackSettings, bucket: str, key: str, secret: str, log_group: str
) -> str:
    """Return the script of the first boot, which downloads the bundle and runs its ``bootstrap.sh``.

    It must not contain secrets: everyone who may describe instances can read user data.
    """
    environment = instance_environment(names, settings, bucket, key, secret, log_group)
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    return f"""#!/bin/bash
set -euo pipefail
{exports}
aws s3 cp --only-show-errors "$GORGGLE_BUNDLE" /tmp/gorggle.zip
mkdir -p /opt/gorggle
/opt/pytorch/bin/python -m zipfile -e /tmp/gorggle.zip /opt/gorggle/bundle
rm /tmp/gorggle.zip
exec bash /opt/gorggle/bundle/infrastructure/instance_agent/bootstrap.sh
"""
