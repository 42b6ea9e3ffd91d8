"""Tests of the function manifest: validation, resource references, and cost estimates based on the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gorggle_lambdas.aws_costs import cost_model
from gorggle_lambdas.aws_costs.prices import Prices, PricesError, parse_prices
from gorggle_lambdas.common import cost_estimates
from gorggle_lambdas.common.job_options import JobOptions
from gorggle_lambdas.common.task_events import JobEvent
from infrastructure import cost_estimate, function_manifest
from infrastructure.config import StackSettings
from infrastructure.naming import Names
from infrastructure.resource_references import ResourceReferences

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = """
[defaults]
memory_mb = 128
timeout_s = 10
ephemeral_mb = 512
in_vpc = false
layers = []
[functions.do_it]
description = "Does it."
handler = "a.b"
environment = {}
statements = []
trigger = { kind = "state_machine" }
"""


def parse_manifest(text: str, folder: Path) -> function_manifest.Manifest:
    path = folder / "functions.toml"
    path.write_text(text)
    return function_manifest.read_manifest(path)


def test_a_function_has_the_name_of_its_table(tmp_path: Path) -> None:
    assert parse_manifest(FUNCTION, tmp_path).functions["do_it"].name == "do_it"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "state_machine"', 'kind = "carrier_pigeon"', "trigger"),
        ('kind = "state_machine"', 'kind = "state_machine", speed = 9', "trigger"),
        ("memory_mb = 128", "memory_mb = 64", r"do_it.memory_mb\n.*greater than or equal to 128"),
        ("timeout_s = 10", "timeout_s = 901", r"do_it.timeout_s\n.*less than or equal to 900"),
        ("environment = {}", "environment = {}\ncolour = 'blue'", "colour"),
        (
            "statements = []",
            "statements = [{actions = ['s3:GetObject'], resources = ['*']}]",
            "without a reason",
        ),
        (
            "statements = []",
            "statements = [{actions = ['s3:GetObject'], resources = [], note = 'x'}]",
            "note",
        ),
        ("[defaults]", "[colours]\n[defaults]", "colours"),
    ],
)
def test_an_invalid_manifest_is_rejected(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parse_manifest(FUNCTION.replace(old, new), tmp_path)


@pytest.fixture
def references() -> ResourceReferences:
    resources = ResourceReferences(
        Names("test", "123456789012", "us-east-1"), StackSettings(nat_gateway=True), "arn:key"
    )
    resources.add("table:jobs", "arn:aws:dynamodb:us-east-1:123456789012:table/jobs", "jobs")
    return resources


def test_references_resolve_to_values_and_to_arns(references: ResourceReferences) -> None:
    assert references.resolve("table:jobs") == "jobs"
    assert references.resolve("setting:max_concurrent_jobs") == "10"
    assert references.resolve("setting:nat_gateway") == "true"
    assert references.resolve("gorggle") == "gorggle"
    assert references.resolve_arns("table:jobs") == ["arn:aws:dynamodb:us-east-1:123456789012:table/jobs"]
    assert references.resolve_arns("executions") == [
        "arn:aws:states:us-east-1:123456789012:execution:gorggle-test-pipeline:*"
    ]
    assert references.resolve_arns("fleet")[0].endswith("autoScalingGroupName/gorggle-test-gpu")


@pytest.mark.parametrize("name", ["table:songs", "bucket:songs/*", "queue:songs", "secret:songs", "nonsense"])
def test_an_unknown_reference_in_a_policy_is_rejected(name: str, references: ResourceReferences) -> None:
    with pytest.raises(KeyError):
        references.resolve_arns(name)


def test_an_unknown_reference_in_a_variable_is_rejected(references: ResourceReferences) -> None:
    with pytest.raises(KeyError, match="no such resource"):
        references.resolve("table:songs")


def test_prices_depend_on_the_settings() -> None:
    costs = parse_prices(cost_estimate.prices_json(StackSettings(gpu_instance_types=("g5.xlarge",))))
    assert costs.gpu_per_h == pytest.approx(1.006 + 100 * 0.08 / 730, abs=1e-3)
    custom = StackSettings(prices=json.dumps({"gpu_per_h": 2, "transcribe_per_min": 0.5}))
    overridden = parse_prices(cost_estimate.prices_json(custom))
    assert (overridden.gpu_per_h, overridden.transcribe_per_min) == (2, 0.5)
    assert overridden.rekognition_per_min == Prices().rekognition_per_min
    assert (
        cost_estimate.estimate_outputs(custom)["videoUsdPerHour"]
        > cost_estimate.estimate_outputs(StackSettings())["videoUsdPerHour"] + 28
    )


def test_an_unknown_price_is_rejected() -> None:
    with pytest.raises(PricesError, match="transcribe"):
        cost_estimate.prices_json(StackSettings(prices='{"transcribe": 1}'))


def test_a_job_estimate_equals_the_cost_model() -> None:
    """A job, the stack's outputs and `gorggle cost` show the same estimate, except for idle GPU time."""
    settings = StackSettings()
    cost_config, prices = (
        cost_estimate.to_cost_config(settings),
        parse_prices(cost_estimate.prices_json(settings)),
    )
    hour = cost_model.estimate_video_hours(1.0, cost_config, prices)
    job = JobEvent(
        "0" * 32, 1, "b", "k", "v", int(cost_config.video_gib_per_h * 2**30), "demo.mp4", JobOptions()
    )
    job_cost = cost_estimates.estimate_job_cost(
        job,
        3600.0,
        reads_lips=True,
        audio_engine="transcribe",
        face_engine="rekognition",
        window_duration_s=cost_config.window_duration_s,
        retention_days=cost_config.retention_days,
        prices=cost_estimate.prices_json(settings),
    )
    gpu_idle_usd = hour.parts["gpu_waiting"]
    assert job_cost["total"] == pytest.approx(hour.total - gpu_idle_usd, abs=1e-3)
    for name, usd in hour.parts.items():
        if name != "gpu_waiting":
            assert job_cost[name] == pytest.approx(usd, abs=1e-4), name
    assert set(job_cost) - {"currency", "total"} == set(hour.parts) - {"gpu_waiting"}


def test_measured_cost_equals_the_estimate_for_equal_usage() -> None:
    job = JobEvent("0" * 32, 1, "b", "k", "v", 2**30, "demo.mp4", JobOptions())
    usage = {"windows": 10, "transcribed_s": 600.0, "face_detection_s": 600.0, "gpu_s": 150.0}
    measured_cost = cost_estimates.compute_job_cost(job, usage, retention_days=30, prices="")
    estimated_cost = cost_estimates.estimate_job_cost(
        job,
        600.0,
        reads_lips=True,
        audio_engine="transcribe",
        face_engine="rekognition",
        window_duration_s=60.0,
        retention_days=30,
        prices="",
    )
    compared = {"currency", "transcribe", "rekognition", "gpu", "step_functions", "s3"}
    assert {name: measured_cost[name] for name in compared} == {
        name: estimated_cost[name] for name in compared
    }


def test_the_longest_resource_names_are_within_aws_limits() -> None:
    longest = Names("a" * 16, "123456789012", "ap-southeast-2")
    assert len(longest.bucket("artifacts")) <= 63
    assert len(longest.prefix) <= 32, "the limit of load balancer names"
    functions = [
        *function_manifest.read_manifest(ROOT / "lambdas/functions.toml").functions,
        *function_manifest.read_manifest(ROOT / "lambdas/operations/functions.toml").functions,
    ]
    assert all(len(longest.resource(name)) + len("-role") <= 64 for name in functions)
