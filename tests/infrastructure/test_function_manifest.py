"""The manifest's grammar, what its names mean, and what follows from them."""

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


def parsed(text: str, folder: Path) -> function_manifest.Manifest:
    path = folder / "functions.toml"
    path.write_text(text)
    return function_manifest.read_manifest(path)


def test_a_function_is_named_in_the_state_machine_as_it_is_written_there(tmp_path: Path) -> None:
    assert parsed(FUNCTION, tmp_path).functions["do_it"].name == "do_it"


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
def test_what_the_manifest_cannot_mean_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(FUNCTION.replace(old, new), tmp_path)


@pytest.fixture
def references() -> ResourceReferences:
    made = ResourceReferences(
        Names("test", "123456789012", "us-east-1"), StackSettings(nat_gateway=True), "arn:key"
    )
    made.add("table:jobs", "arn:aws:dynamodb:us-east-1:123456789012:table/jobs", "jobs")
    return made


def test_names_mean_values_in_environments_and_addresses_in_policies(references: ResourceReferences) -> None:
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
def test_a_name_that_the_stack_does_not_have_is_refused(name: str, references: ResourceReferences) -> None:
    with pytest.raises(KeyError):
        references.resolve_arns(name)


def test_a_variable_that_names_nothing_is_refused(references: ResourceReferences) -> None:
    with pytest.raises(KeyError, match="no such resource"):
        references.resolve("table:songs")


def test_functions_count_with_the_prices_of_their_stack() -> None:
    costs = parse_prices(cost_estimate.prices_json(StackSettings(gpu_instance_types=("g5.xlarge",))))
    assert costs.gpu_per_h == pytest.approx(1.006 + 100 * 0.08 / 730, abs=1e-3)
    own = StackSettings(prices=json.dumps({"gpu_per_h": 2, "transcribe_per_min": 0.5}))
    given = parse_prices(cost_estimate.prices_json(own))
    assert (given.gpu_per_h, given.transcribe_per_min) == (2, 0.5)
    assert given.rekognition_per_min == Prices().rekognition_per_min
    assert (
        cost_estimate.estimate_outputs(own)["videoUsdPerHour"]
        > cost_estimate.estimate_outputs(StackSettings())["videoUsdPerHour"] + 28
    )


def test_prices_that_cannot_be_are_refused_before_anything_is_built() -> None:
    with pytest.raises(PricesError, match="transcribe"):
        cost_estimate.prices_json(StackSettings(prices='{"transcribe": 1}'))


def test_a_job_s_estimate_is_the_stack_s_own_model() -> None:
    """What a job shows and what the stack's outputs and `gorggle cost` say are one sum."""
    settings = StackSettings()
    shape, unit = cost_estimate.to_cost_config(settings), parse_prices(cost_estimate.prices_json(settings))
    hour = cost_model.estimate_video_hours(1.0, shape, unit)
    job = JobEvent("0" * 32, 1, "b", "k", "v", int(shape.video_gib_per_h * 2**30), "demo.mp4", JobOptions())
    found = cost_estimates.estimate_job_cost(
        job,
        3600.0,
        reads_lips=True,
        audio_engine="transcribe",
        face_engine="rekognition",
        window_duration_s=shape.window_duration_s,
        retention_days=shape.retention_days,
        prices=cost_estimate.prices_json(settings),
    )
    waking = hour.parts["gpu_waiting"]
    assert found["total"] == pytest.approx(hour.total - waking, abs=1e-3)
    for name, usd in hour.parts.items():
        if name != "gpu_waiting":
            assert found[name] == pytest.approx(usd, abs=1e-4), name
    assert set(found) - {"currency", "total"} == set(hour.parts) - {"gpu_waiting"}


def test_what_was_measured_is_counted_like_what_was_planned() -> None:
    job = JobEvent("0" * 32, 1, "b", "k", "v", 2**30, "demo.mp4", JobOptions())
    measured = {"windows": 10, "transcribed_s": 600.0, "face_detection_s": 600.0, "gpu_s": 150.0}
    after = cost_estimates.compute_job_cost(job, measured, retention_days=30, prices="")
    before = cost_estimates.estimate_job_cost(
        job,
        600.0,
        reads_lips=True,
        audio_engine="transcribe",
        face_engine="rekognition",
        window_duration_s=60.0,
        retention_days=30,
        prices="",
    )
    same = {"currency", "transcribe", "rekognition", "gpu", "step_functions", "s3"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_buckets_names_are_as_long_as_s3_takes() -> None:
    longest = Names("a" * 16, "123456789012", "ap-southeast-2")
    assert len(longest.bucket("artifacts")) <= 63
    assert len(longest.prefix) <= 32, "a load balancer's name"
    functions = [
        *function_manifest.read_manifest(ROOT / "lambdas/functions.toml").functions,
        *function_manifest.read_manifest(ROOT / "lambdas/operations/functions.toml").functions,
    ]
    assert all(len(longest.resource(name)) + len("-role") <= 64 for name in functions)
