"""Gorggle on AWS: settings, then components, then outputs. ``pulumi up`` runs this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infrastructure import cors as cross_origin
from infrastructure import cost_estimate, event_sources, function_manifest, network, quota_check
from infrastructure.alarms import Monitoring
from infrastructure.artifacts import Artifacts
from infrastructure.autoscaling import Scaling
from infrastructure.budget import Budget
from infrastructure.config import StackSettings, read_settings, validate_stack_name
from infrastructure.dashboard import Dashboard
from infrastructure.gpu_fleet import GpuFleet
from infrastructure.http_api import Api
from infrastructure.kms import PUBLISHERS, Encryption
from infrastructure.lambda_function import FunctionContext, LambdaFunction
from infrastructure.load_balancer import LoadBalancer
from infrastructure.messaging import Queue, Topic
from infrastructure.naming import Names
from infrastructure.packaging import build
from infrastructure.packaging.package import Packages
from infrastructure.resource_references import ResourceReferences
from infrastructure.secrets import Credentials
from infrastructure.state_machine import Pipeline
from infrastructure.storage import Bucket, BucketSpec, Table
from infrastructure.website import Website

ROOT = Path(__file__).resolve().parent
# Functions and secrets that are there for API tokens alone.
TOKEN_PARTS = ("authorize_request", "rotate_token", "api_tokens", "operator_token")


def stack(settings: StackSettings, packages: Packages) -> dict[str, Any]:
    """Put the stack together; the result is its outputs."""
    region = pulumi.Config("aws").require("region")
    name = validate_stack_name(pulumi.get_stack())
    tags = {**settings.tag_map, "gorggle:stack": name}
    provider = aws.Provider("aws", region=region, default_tags={"tags": tags})
    here = pulumi.ResourceOptions(provider=provider)
    asks = pulumi.InvokeOptions(provider=provider)
    names = Names(
        stack=name,
        account=aws.get_caller_identity(opts=asks).account_id,
        region=region,
        partition=aws.get_partition(opts=asks).partition,
    )
    quota_check.warn_about_quotas(settings, opts=asks)
    left_out = () if settings.api_auth == "token" else TOKEN_PARTS
    work = function_manifest.read_manifest(ROOT / "lambdas/functions.toml").without(left_out)
    care = function_manifest.read_manifest(ROOT / "lambdas/operations/functions.toml").without(left_out)

    key_arn = Encryption("encryption", names, here).key_arn
    references = ResourceReferences(names, settings, key_arn)
    net = network.Network(
        "network", names, settings, network.find_gpu_zones(settings, opts=asks), key_arn, here
    )
    balancer = LoadBalancer("gpu", names, settings, net, here)
    references.values["server:address"] = balancer.address

    buckets = {
        role: Bucket(role, names, _bucket_shape(role, shape, settings, key_arn), here)
        for role, shape in work.buckets.items()
    }
    for role, bucket in buckets.items():
        references.add(f"bucket:{role}", bucket.arn, bucket.name)
    tables = {}
    for role, shape in work.tables.items():
        tables[role] = table = Table(f"table-{role}", names, role, shape, settings, key_arn, here)
        references.add(f"table:{role}", table.arn, table.name)
    queues = _queues(names, work, here)
    for role, queue in queues.items():
        references.add(f"queue:{role}", queue.arn, queue.url)
    topics = {
        role: Topic(f"topic-{role}", names, role, key_arn, PUBLISHERS if role != "jobs" else (), here)
        for role in (*work.topics, *care.topics, "alerts")
    }
    for role, topic in topics.items():
        references.add(f"topic:{role}", topic.arn, topic.arn)
    credentials = Credentials("credentials", names, (*work.secrets, *care.secrets), here)
    for role, secret in credentials.secrets.items():
        references.add(f"secret:{role}", secret.arn, secret.arn)

    artifacts = Artifacts("artifacts", names, settings, packages, here)
    around = FunctionContext(
        names=names,
        settings=settings,
        references=references,
        layers=artifacts.layers,
        subnet_ids=net.subnet_ids,
        security_group_id=balancer.functions_group.id,
        dead_letter_queue_arn=queues["event_failures"].arn,
        key_arn=key_arn,
    )
    functions = {
        each.name: LambdaFunction(each, artifacts.code[kind], around, here)
        for source, plain in ((work, "thin"), (care, "operations"))
        for each in source.functions.values()
        for kind in ("full" if "media" in each.layers else plain,)
    }
    assert work.state_machine is not None
    pipeline = Pipeline("pipeline", names, settings, work.state_machine, functions, references, key_arn, here)
    event_sources.Triggers("triggers", names, work, functions, queues, references, here)
    event_sources.add_operations_triggers(care, functions, credentials, topics, here)

    fleet = GpuFleet(
        "fleet",
        names,
        settings,
        net,
        balancer,
        artifacts.server_bundle,
        credentials.secrets["server_certificate"].arn,
        key_arn,
        here,
    )
    Scaling("scaling", names, settings, fleet.group, here)

    pages = names.sign_in_url if settings.api_auth == "cognito" else ""
    site = Website("website", names, buckets, pages, here) if settings.website else None
    origins = [site.origin] if site else []
    api = Api("api", names, settings, work, functions, origins, key_arn, here)
    if site:
        buckets["uploads"].set_cors_rules(
            [cross_origin.upload_cors_rule(origins), cross_origin.download_cors_rule(origins)]
        )
        buckets["results"].set_cors_rules([cross_origin.download_cors_rule(origins)])
        site.publish(
            ROOT, {"api": api.url, "max_upload_bytes": settings.max_upload_bytes, **api.sign_in_config}
        )

    Budget("budget", names, settings, topics["alerts"], topics["budget"], functions["scale_up_fleet"], here)
    watch = Monitoring("monitoring", names, settings, topics["alerts"], here)
    watch.add_function_alarms(functions)
    dead_letters = {role: queues[role] for role in queues if role.endswith("_failures")}
    watch.add_pipeline_alarms(pipeline, dead_letters, queues["uploads"])
    watch.add_api_alarms(api)
    watch.add_fleet_alarms(fleet)
    dashboard = Dashboard(
        "dashboard",
        names,
        functions=[names.function(each) for each in functions],
        queues=[names.queue(role) for role in queues],
        api_id=api.api.id,
        state_machine_arn=pipeline.arn,
        load_balancer_suffixes=(balancer.target_group.arn_suffix, balancer.balancer.arn_suffix),
        alarm_arns=[alarm.arn for alarm in watch.alarms],
        opts=here,
    )
    return {
        "api": api.url,
        "website": site.origin if site else None,
        "uploadsBucket": buckets["uploads"].name,
        "resultsBucket": buckets["results"].name,
        "artifactsBucket": artifacts.bucket.name,
        "websiteBucket": site.bucket.name if site else None,
        "jobsTable": tables["jobs"].name,
        "stateMachine": pipeline.arn,
        "gpuFleet": fleet.group.name,
        "serverAddress": balancer.address,
        "operatorToken": names.secret("operator_token") if not left_out else None,
        "dashboard": dashboard.url,
        "alertsTopic": topics["alerts"].arn,
        **cost_estimate.estimate_outputs(settings),
    }


def _bucket_shape(
    role: str, shape: dict[str, Any], settings: StackSettings, key_arn: pulumi.Input[str]
) -> BucketSpec:
    return BucketSpec(
        role,
        versioned=shape.get("versioned", False),
        event_bridge=shape.get("event_bridge", False),
        expire_days=settings.job_retention_days,
        key_arn=key_arn,
        retain=settings.deletion_protection,
    )


def _queues(names: Names, work: function_manifest.Manifest, opts: pulumi.ResourceOptions) -> dict[str, Queue]:
    """Dead letters first: the others are given their addresses."""
    queues: dict[str, Queue] = {}
    for role, shape in sorted(work.queues.items(), key=lambda each: "dead_letters" in each[1]):
        dead = queues[shape["dead_letters"]].arn if "dead_letters" in shape else None
        queues[role] = Queue(f"queue-{role}", names.queue(role), shape, dead, opts)
    return queues


if __name__ == "__main__":
    config = pulumi.Config("gorggle")
    chosen = read_settings(config.get, config.get_object)
    for output, value in stack(chosen, build.packages(ROOT, chosen)).items():
        pulumi.export(output, value)
