"""Tests of the state machine definition: linter rules, named errors and timeouts."""

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
from gorggle_lambdas.state_machine import build_definition
from tests.lambdas.state_machine import find_problems, iter_states, list_named_errors

ROOT = Path(__file__).resolve().parents[2]
MANIFEST: dict[str, Any] = tomllib.loads((ROOT / "lambdas" / "functions.toml").read_text())
NAMES = [*MANIFEST["state_machine"]["calls"], *MANIFEST["state_machine"]["parameters"]]
DEFINITION = build_definition({name: name for name in NAMES})
TASKS = [(name, state) for name, state in iter_states(DEFINITION) if state["Type"] == "Task"]
# These have no Catch: their errors end the execution, which reconcile_jobs handles.
UNCAUGHT = ("record_source_failure", "fail_job")


def get_function_name(state: dict[str, Any]) -> str:
    name: str = state["Parameters"]["FunctionName"]
    return name


def test_the_definition_has_no_problem() -> None:
    assert find_problems(DEFINITION) == []


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda d: d["States"]["ProbeMedia"].update(Next="Nowhere"), "is not a state"),
        (lambda d: d.update(StartAt="Nowhere"), "starts at Nowhere"),
        (lambda d: d["States"].update(Alone={"Type": "Pass", "End": True}), "Alone is unreachable"),
        (lambda d: d["States"]["ProbeMedia"].pop("TimeoutSeconds"), "TimeoutSeconds"),
        (lambda d: d["States"]["ProbeMedia"].pop("Retry"), "Retry"),
        (lambda d: d["States"]["ProbeMedia"]["Retry"][0].pop("JitterStrategy"), "no jitter"),
        (lambda d: d["States"]["AnalyzeMedia"].pop("Catch"), "Catch of States.ALL"),
        (lambda d: d["States"]["ProbeMedia"].update(ResultPath="$.a[0].b"), "array element"),
        (lambda d: d["States"]["ProbeMedia"].update(End=True), "either Next or End"),
        (lambda d: d["States"]["ProbeMedia"]["Catch"].reverse(), "precedes another"),
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
            "is duplicated",
        ),
    ],
)
def test_the_linter_finds_every_problem(corrupt: Callable[[dict[str, Any]], object], message: str) -> None:
    corrupted = copy.deepcopy(DEFINITION)
    corrupt(corrupted)
    assert any(message in problem for problem in find_problems(corrupted))


@pytest.mark.parametrize(("name", "state"), TASKS, ids=[name for name, _ in TASKS])
def test_a_state_names_exactly_the_errors_of_its_function(name: str, state: dict[str, Any]) -> None:
    raises = importlib.import_module(f"gorggle_lambdas.handlers.{get_function_name(state)}").RAISES
    assert list_named_errors(state) == {error.__name__ for error in raises}


@pytest.mark.parametrize(("name", "state"), TASKS, ids=[name for name, _ in TASKS])
def test_every_failure_is_caught(name: str, state: dict[str, Any]) -> None:
    catches = [catcher for catcher in state.get("Catch", []) if "States.ALL" in catcher["ErrorEquals"]]
    assert bool(catches) != (get_function_name(state) in UNCAUGHT)
    assert all(catcher["ResultPath"] == "$.error" for catcher in state.get("Catch", []))


def test_every_pipeline_error_is_declared_by_a_function() -> None:
    declared = {
        error.__name__
        for function in MANIFEST["state_machine"]["calls"]
        for error in importlib.import_module(f"gorggle_lambdas.handlers.{function}").RAISES
    }
    raised_errors = {error.__name__ for error in PipelineError.__subclasses__()}
    assert raised_errors <= declared


def test_every_raised_error_is_declared() -> None:
    """Named errors raised in modules used by tasks are declared by a task or belong to the API."""
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
    raised_errors = {
        name for name in raised if name.endswith("Error") and name[:-5] not in ("Value", "Key", "Runtime")
    }
    other_errors = {"SettingsError", "OptionsError", "CorrectionError", "FusionInputError"}
    assert raised_errors - other_errors <= known


@pytest.mark.parametrize(("name", "state"), TASKS, ids=[name for name, _ in TASKS])
def test_timeouts_increase_from_function_to_state_to_execution(name: str, state: dict[str, Any]) -> None:
    function = MANIFEST["functions"][get_function_name(state)]
    timeout_s = function.get("timeout_s", MANIFEST["defaults"]["timeout_s"])
    assert timeout_s < state["TimeoutSeconds"] < DEFINITION["TimeoutSeconds"]


def test_the_manifest_lists_exactly_the_called_functions() -> None:
    assert {get_function_name(state) for _, state in TASKS} == set(MANIFEST["state_machine"]["calls"])


@pytest.mark.parametrize("name", NAMES)
def test_the_definition_requires_every_value_of_the_manifest(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        build_definition({other: other for other in NAMES if other != name})


def test_the_definition_is_json() -> None:
    values = {name: f"arn:{name}" for name in NAMES} | {"max_concurrent_windows": 8}
    definition = build_definition(values)
    assert json.loads(json.dumps(definition)) == definition
    maps = [state for _, state in iter_states(definition) if state["Type"] == "Map"]
    assert [state["MaxConcurrency"] for state in maps] == [8] * 4
