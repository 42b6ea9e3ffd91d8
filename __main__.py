"""The Pulumi program of Gorggle on AWS, run by ``pulumi up``: settings, components, outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure import cors, cost_estimate, event_sources, function_manifest, network, quota_check
from infrastructure.alarms import Monitoring
from infrastructure.artifacts import Artifacts
from infrastructure.autoscaling import Scaling
from infrastructure.budget import Budget
from infrastructure.component import StackContext
from infrastructure.config import StackSettings, read_settings, validate_stack_name
from infrastructure.dashboard import Dashboard
from infrastructure.function_manifest import Manifest
from infrastructure.gpu_fleet import GpuFleet
from infrastructure.http_api import Api
from infrastructure.kms import PUBLISHERS, Encryption
from infrastructure.lambda_function import LambdaFunction, SharedResources
from infrastructure.load_balancer import LoadBalancer
from infrastructure.messaging import Queue, Topic
from infrastructure.naming import Names
from infrastructure.packaging import build
from infrastructure.packaging.package import Packages
from infrastructure.pipeline import Pipeline
from infrastructure.resource_references import ResourceReferences
from infrastructure.secrets import Credentials
from infrastructure.storage import Bucket, BucketSpec, Table
from infrastructure.website import Website

ROOT = Path(__file__).resolve().parent
# Functions and secrets that only exist with apiAuth: token.
TOKEN_PARTS = ("authorize_request", "rotate_token", "api_tokens", "operator_token")


@dataclass(frozen=True)
class Foundation:
    """Network, storage, queues, topics and secrets."""

    network: network.Network
    buckets: Mapping[str, Bucket]
    tables: Mapping[str, Table]
    queues: Mapping[str, Queue]
    topics: Mapping[str, Topic]
    credentials: Credentials
    references: ResourceReferences


@dataclass(frozen=True)
class Compute:
    """Lambda functions, state machine and GPU fleet."""

    artifacts: Artifacts
    functions: Mapping[str, LambdaFunction]
    pipeline: Pipeline
    balancer: LoadBalancer
    fleet: GpuFleet


@dataclass(frozen=True)
class Edge:
    """What users reach: the HTTP API, and the website unless it is disabled."""

    api: Api
    site: Website | None


def stack(settings: StackSettings, packages: Packages) -> dict[str, Any]:
    """Declare all resources and return the stack's outputs."""
    region = pulumi.Config("aws").require("region")
    name = validate_stack_name(pulumi.get_stack())
    tags = {**settings.tag_map, "gorggle:stack": name}
    provider = aws.Provider("aws", region=region, default_tags={"tags": tags})
    opts = pulumi.ResourceOptions(provider=provider)
    invoke_opts = pulumi.InvokeOptions(provider=provider)
    names = Names(
        stack=name,
        account=aws.get_caller_identity(opts=invoke_opts).account_id,
        region=region,
        partition=aws.get_partition(opts=invoke_opts).partition,
    )
    quota_check.warn_about_quotas(settings, opts=invoke_opts)
    zones = network.find_gpu_zones(settings, opts=invoke_opts)
    excluded = () if settings.api_auth == "token" else TOKEN_PARTS
    pipeline_manifest, operations_manifest = (
        function_manifest.read_manifest(ROOT / path).without(excluded) for path in build.MANIFESTS
    )
    context = StackContext(names, settings, Encryption("encryption", names, opts).key_arn, opts)
    foundation = create_foundation(context, zones, pipeline_manifest, operations_manifest)
    compute = create_compute(context, foundation, pipeline_manifest, operations_manifest, packages)
    edge = create_edge(context, foundation, compute, pipeline_manifest)
    dashboard = create_operations(context, foundation, compute, edge)
    return {
        "api": edge.api.url,
        "website": edge.site.origin if edge.site else None,
        "uploadsBucket": foundation.buckets["uploads"].name,
        "resultsBucket": foundation.buckets["results"].name,
        "artifactsBucket": compute.artifacts.bucket.name,
        "websiteBucket": edge.site.bucket.name if edge.site else None,
        "jobsTable": foundation.tables["jobs"].name,
        "stateMachine": compute.pipeline.arn,
        "gpuFleet": compute.fleet.group.name,
        "serverAddress": compute.balancer.address,
        "operatorToken": names.secret("operator_token") if settings.api_auth == "token" else None,
        "dashboard": dashboard.url,
        "alertsTopic": foundation.topics["alerts"].arn,
        **cost_estimate.estimate_outputs(settings),
    }


def create_foundation(
    context: StackContext, zones: list[str], pipeline_manifest: Manifest, operations_manifest: Manifest
) -> Foundation:
    """Create what holds data, and register it for the references of the manifests."""
    references = ResourceReferences(context.names, context.settings, context.key_arn)
    buckets = {
        role: Bucket(role, context, _bucket_spec(role, spec, context))
        for role, spec in pipeline_manifest.buckets.items()
    }
    tables = {
        role: Table(f"table-{role}", context, role, spec) for role, spec in pipeline_manifest.tables.items()
    }
    queues = _create_queues(context, pipeline_manifest)
    topics = {
        role: Topic(f"topic-{role}", context, role, PUBLISHERS if role != "jobs" else ())
        for role in (*pipeline_manifest.topics, *operations_manifest.topics, "alerts")
    }
    roles = (*pipeline_manifest.secrets, *operations_manifest.secrets)
    credentials = Credentials("credentials", context, roles)
    for role, bucket in buckets.items():
        references.add(f"bucket:{role}", bucket.arn, bucket.name)
    for role, table in tables.items():
        references.add(f"table:{role}", table.arn, table.name)
    for role, queue in queues.items():
        references.add(f"queue:{role}", queue.arn, queue.url)
    for role, topic in topics.items():
        references.add(f"topic:{role}", topic.arn, topic.arn)
    for role, secret in credentials.secrets.items():
        references.add(f"secret:{role}", secret.arn, secret.arn)
    vpc = network.Network("network", context, zones)
    return Foundation(vpc, buckets, tables, queues, topics, credentials, references)


def _bucket_spec(role: str, spec: Mapping[str, Any], context: StackContext) -> BucketSpec:
    return BucketSpec(
        role,
        versioned=spec.get("versioned", False),
        event_bridge=spec.get("event_bridge", False),
        expire_days=context.settings.job_retention_days,
        key_arn=context.key_arn,
        retain=context.settings.deletion_protection,
    )


def _create_queues(context: StackContext, manifest: Manifest) -> dict[str, Queue]:
    """Create dead-letter queues first: the other queues refer to them."""
    queues: dict[str, Queue] = {}
    for role, spec in sorted(manifest.queues.items(), key=lambda item: "dead_letters" in item[1]):
        dead_letter_queue = queues[spec["dead_letters"]].arn if "dead_letters" in spec else None
        queues[role] = Queue(f"queue-{role}", context, role, spec, dead_letter_queue)
    return queues


def create_compute(
    context: StackContext,
    foundation: Foundation,
    pipeline_manifest: Manifest,
    operations_manifest: Manifest,
    packages: Packages,
) -> Compute:
    """Create the functions with their triggers, the state machine, and the GPU fleet."""
    references = foundation.references
    balancer = LoadBalancer("gpu", context, foundation.network)
    references.values["server:address"] = balancer.address
    artifacts = Artifacts("artifacts", context, packages)
    shared = SharedResources(
        references=references,
        layers=artifacts.layers,
        subnet_ids=foundation.network.subnet_ids,
        security_group_id=balancer.functions_group.id,
        dead_letter_queue_arn=foundation.queues["event_failures"].arn,
    )
    functions = {
        spec.name: LambdaFunction(
            context, spec, artifacts.code["full" if "media" in spec.layers else kind], shared
        )
        for manifest, kind in ((pipeline_manifest, "thin"), (operations_manifest, "operations"))
        for spec in manifest.functions.values()
    }
    assert pipeline_manifest.state_machine is not None
    pipeline = Pipeline("pipeline", context, pipeline_manifest.state_machine, functions, references)
    event_sources.Triggers("triggers", context, pipeline_manifest, functions, foundation.queues, references)
    event_sources.add_operations_triggers(
        operations_manifest, functions, foundation.credentials, foundation.topics, context.opts
    )
    fleet = GpuFleet(
        "fleet",
        context,
        foundation.network,
        balancer,
        artifacts.server_bundle,
        foundation.credentials.secrets["server_certificate"].arn,
    )
    Scaling("scaling", context, fleet.group)
    return Compute(artifacts, functions, pipeline, balancer, fleet)


def create_edge(context: StackContext, foundation: Foundation, compute: Compute, manifest: Manifest) -> Edge:
    """Create the API and the website, and allow the website's pages to call API and buckets."""
    settings, buckets = context.settings, foundation.buckets
    sign_in_url = context.names.sign_in_url if settings.api_auth == "cognito" else ""
    site = Website("website", context, buckets, sign_in_url) if settings.website else None
    origins = [site.origin] if site else []
    api = Api("api", context, manifest, compute.functions, origins)
    if site:
        download_rule = cors.download_cors_rule(origins)
        buckets["uploads"].set_cors_rules([cors.upload_cors_rule(origins), download_rule])
        buckets["results"].set_cors_rules([download_rule])
        site.publish(
            ROOT, {"api": api.url, "max_upload_bytes": settings.max_upload_bytes, **api.sign_in_config}
        )
    return Edge(api, site)


def create_operations(
    context: StackContext, foundation: Foundation, compute: Compute, edge: Edge
) -> Dashboard:
    """Create budget, alarms and dashboard."""
    queues, topics, functions = foundation.queues, foundation.topics, compute.functions
    Budget("budget", context, topics["alerts"], topics["budget"], functions["scale_up_fleet"])
    monitoring = Monitoring("monitoring", context, topics["alerts"])
    monitoring.add_function_alarms(functions)
    dead_letter_queues = {role: queue for role, queue in queues.items() if role.endswith("_failures")}
    monitoring.add_pipeline_alarms(compute.pipeline, dead_letter_queues, queues["uploads"])
    monitoring.add_api_alarms(edge.api)
    monitoring.add_fleet_alarms(compute.fleet)
    return Dashboard(
        "dashboard",
        context,
        functions=[context.names.resource(name) for name in functions],
        queues=[context.names.resource(role) for role in queues],
        api_id=edge.api.api.id,
        state_machine_arn=compute.pipeline.arn,
        load_balancer_suffixes=[
            compute.balancer.target_group.arn_suffix,
            compute.balancer.balancer.arn_suffix,
        ],
        alarm_arns=[alarm.arn for alarm in monitoring.alarms],
    )


if __name__ == "__main__":
    config = pulumi.Config("gorggle")
    current = read_settings(config.get, config.get_object)
    for output, value in stack(current, build.build_packages(ROOT, current)).items():
        pulumi.export(output, value)
