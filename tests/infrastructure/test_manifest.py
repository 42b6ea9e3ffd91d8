"""The manifest's grammar, what its names mean, and what follows from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gorggle import costs

from infrastructure import estimates, manifest
from infrastructure.naming import Names
from infrastructure.pipeline import rendered
from infrastructure.references import References
from infrastructure.settings import StackSettings
from lambdas.common.costs import Prices, prices

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


def parsed(text: str, folder: Path) -> manifest.Manifest:
    path = folder / "functions.toml"
    path.write_text(text)
    return manifest.read(path)


def test_a_function_is_named_in_the_state_machine_as_it_is_written_there(tmp_path: Path) -> None:
    assert parsed(FUNCTION, tmp_path).functions["do_it"].pascal_name == "DoIt"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "state_machine"', 'kind = "carrier_pigeon"', "trigger"),
        ('kind = "state_machine"', 'kind = "state_machine", speed = 9', "trigger"),
        ("memory_mb = 128", "memory_mb = 64", "128 to 10240"),
        ("timeout_s = 10", "timeout_s = 901", "1 to 900"),
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
def references() -> References:
    made = References(Names("test", "123456789012", "us-east-1"), StackSettings(nat=True), "arn:key")
    made.add("table:jobs", "arn:aws:dynamodb:us-east-1:123456789012:table/jobs", "jobs")
    return made


def test_names_mean_values_in_environments_and_addresses_in_policies(references: References) -> None:
    assert references.value("table:jobs") == "jobs"
    assert references.value("setting:max_jobs") == "10"
    assert references.value("setting:nat") == "true"
    assert references.value("gorggle") == "gorggle"
    assert references.arn("table:jobs") == ["arn:aws:dynamodb:us-east-1:123456789012:table/jobs"]
    assert references.arn("executions") == [
        "arn:aws:states:us-east-1:123456789012:execution:gorggle-test-pipeline:*"
    ]
    assert references.arn("fleet")[0].endswith("autoScalingGroupName/gorggle-test-gpu")


@pytest.mark.parametrize("name", ["table:songs", "bucket:songs/*", "queue:songs", "secret:songs", "nonsense"])
def test_a_name_that_the_stack_does_not_have_is_refused(name: str, references: References) -> None:
    with pytest.raises(KeyError):
        references.arn(name)


def test_a_variable_that_names_nothing_is_refused(references: References) -> None:
    with pytest.raises(KeyError, match="no such thing"):
        references.value("table:songs")


def test_a_definition_keeps_the_types_of_what_is_put_in() -> None:
    definition = {"Function": "${DoIt}", "Max": "${Max}", "Text": "at most ${Max}", "List": ["${DoIt}", 1]}
    found = rendered(definition, {"DoIt": "arn", "Max": 8})
    assert found == {"Function": "arn", "Max": 8, "Text": "at most 8", "List": ["arn", 1]}
    with pytest.raises(KeyError):
        rendered("${Missing}", {})


def test_both_cost_models_have_the_same_prices() -> None:
    """The functions estimate with the prices of the stack that they are in."""
    theirs, ours = Prices(), costs.Prices()
    for name in (
        "transcribe_per_min",
        "rekognition_per_min",
        "lambda_per_gb_s",
        "gpu_s_per_video_s",
        "lambda_gb_s_per_video_s",
    ):
        assert getattr(theirs, name) == getattr(ours, name), name
    told = prices(estimates.prices(StackSettings(gpu_instance_types=("g5.xlarge",))))
    assert told.gpu_per_h == pytest.approx(1.006 + 100 * 0.08 / 730, abs=1e-3)
    given = json.dumps({"gpu_per_h": 2})
    assert estimates.prices(StackSettings(prices=given)) == given


def test_buckets_names_are_as_long_as_s3_takes() -> None:
    longest = Names("a" * 16, "123456789012", "ap-southeast-2")
    assert len(longest.bucket("artifacts")) <= 63
    assert len(longest.prefix) <= 32, "a load balancer's name"
    functions = [
        *manifest.read(ROOT / "lambdas/functions.toml").functions,
        *manifest.read(ROOT / "infrastructure/operations/functions.toml").functions,
    ]
    assert all(len(longest.function(name)) + len("-role") <= 64 for name in functions)
