"""The definition holds together, and knows every error that the functions raise on purpose, by name."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gorggle_lambdas.common.errors import PipelineError
from tests.lambdas.state_machine import named_errors, problems, states

ROOT = Path(__file__).resolve().parents[2]
DEFINITION: dict[str, Any] = json.loads((ROOT / "lambdas" / "state_machine.asl.json").read_text())
MANIFEST: dict[str, Any] = tomllib.loads((ROOT / "lambdas" / "functions.toml").read_text())
TASKS = [(name, state) for name, state in states(DEFINITION) if state["Type"] == "Task"]
# Errors are caught, or end the execution, which reconcile_jobs sees.
UNCAUGHT = ("record_source_failure", "fail_job")


def function_of(state: dict[str, Any]) -> str:
    pascal = state["Parameters"]["FunctionName"].removeprefix("${").removesuffix("}")
    return next(
        name for name in MANIFEST["functions"] if "".join(map(str.capitalize, name.split("_"))) == pascal
    )


def test_the_definition_has_no_problem() -> None:
    assert problems(DEFINITION) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda d: d["States"]["ProbeMedia"].update(Next="Nowhere"), "none of its states"),
        (lambda d: d.update(StartAt="Nowhere"), "starts at Nowhere"),
        (lambda d: d["States"].update(Alone={"Type": "Pass", "End": True}), "nothing leads to Alone"),
        (lambda d: d["States"]["ProbeMedia"].pop("TimeoutSeconds"), "TimeoutSeconds"),
        (lambda d: d["States"]["ProbeMedia"].pop("Retry"), "Retry"),
        (lambda d: d["States"]["ProbeMedia"]["Retry"][0].pop("JitterStrategy"), "no jitter"),
        (lambda d: d["States"]["AnalyzeMedia"].pop("Catch"), "Catch of States.ALL"),
        (lambda d: d["States"]["ProbeMedia"].update(ResultPath="$.a[0].b"), "array's element"),
        (lambda d: d["States"]["ProbeMedia"].update(End=True), "one of them"),
        (lambda d: d["States"]["ProbeMedia"]["Catch"].reverse(), "before another"),
        (lambda d: d["States"]["ProbeMedia"].update(HeartbeatSeconds=5), "task token"),
        (lambda d: d.pop("TimeoutSeconds"), "the whole has no"),
        (
            lambda d: (
                d["States"].update(
                    JobSucceeded=d["States"]["AnalyzeMedia"]["Branches"][0]["States"]["AudioDone"]
                    | {"Type": "Pass"}
                )
                or d["States"]["AnalyzeMedia"]["Branches"][0]["States"].update(
                    JobSucceeded={"Type": "Pass", "End": True}
                )
            ),
            "comes twice",
        ),
    ],
)
def test_the_linter_finds_what_is_wrong(harm: Callable[[dict[str, Any]], object], said: str) -> None:
    harmed = copy.deepcopy(DEFINITION)
    harm(harmed)
    assert any(said in problem for problem in problems(harmed))


@pytest.mark.parametrize(("name", "state"), TASKS, ids=[name for name, _ in TASKS])
def test_a_state_knows_exactly_the_errors_that_its_function_raises(name: str, state: dict[str, Any]) -> None:
    raises = importlib.import_module(f"gorggle_lambdas.handlers.{function_of(state)}").RAISES
    assert named_errors(state) == {error.__name__ for error in raises}


@pytest.mark.parametrize(("name", "state"), TASKS, ids=[name for name, _ in TASKS])
def test_every_failure_is_caught(name: str, state: dict[str, Any]) -> None:
    catches = [catcher for catcher in state.get("Catch", []) if "States.ALL" in catcher["ErrorEquals"]]
    assert bool(catches) != (function_of(state) in UNCAUGHT)
    assert all(catcher["ResultPath"] == "$.error" for catcher in state.get("Catch", []))


def test_every_error_of_the_pipeline_is_raised_by_a_function_that_says_so() -> None:
    told = {
        error.__name__
        for function in MANIFEST["state_machine"]["calls"]
        for error in importlib.import_module(f"gorggle_lambdas.handlers.{function}").RAISES
    }
    ours = {error.__name__ for error in PipelineError.__subclasses__()}
    assert ours <= told


def test_whatever_is_raised_anywhere_in_the_functions_is_told() -> None:
    """Errors with names of their own, raised in the modules that tasks use, are in a task's list or the API's own."""
    known = {error.__name__ for error in PipelineError.__subclasses__()}
    raised = set()
    for path in (ROOT / "lambdas").rglob("*.py"):
        if path.parent.name in ("aws_costs", "operations"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and isinstance(node.exc.func, ast.Name)
            ):
                raised.add(node.exc.func.id)
    ours = {
        name for name in raised if name.endswith("Error") and name[:-5] not in ("Value", "Key", "Runtime")
    }
    beside = {"SettingsError", "OptionsError", "CorrectionError", "FusionInputError"}
    assert ours - beside <= known


@pytest.mark.parametrize(("name", "state"), TASKS, ids=[name for name, _ in TASKS])
def test_a_function_ends_before_its_state_and_that_before_the_whole(name: str, state: dict[str, Any]) -> None:
    function = MANIFEST["functions"][function_of(state)]
    timeout_s = function.get("timeout_s", MANIFEST["defaults"]["timeout_s"])
    assert timeout_s < state["TimeoutSeconds"] < DEFINITION["TimeoutSeconds"]


def test_the_manifest_names_exactly_the_functions_that_the_definition_calls() -> None:
    assert {function_of(state) for _, state in TASKS} == set(MANIFEST["state_machine"]["calls"])


def test_the_definition_names_nothing_that_the_manifest_does_not_substitute() -> None:
    import re

    text = (ROOT / "lambdas" / "state_machine.asl.json").read_text()
    named = set(re.findall(r"\$\{(\w+)\}", text))
    functions = {"".join(map(str.capitalize, name.split("_"))) for name in MANIFEST["state_machine"]["calls"]}
    assert named == functions | set(MANIFEST["state_machine"]["substitutions"])
