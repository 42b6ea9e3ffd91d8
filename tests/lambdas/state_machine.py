"""Linter of the state machine definition: rules of Step Functions, limitations of moto, and project conventions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Errors raised by Step Functions and Lambda.
_RESERVED = re.compile(r"(States|Lambda|Sandbox|Runtime)\.\w+")
_TERMINAL = ("Succeed", "Fail")
# An array element within a path: moto returns a list, and a Choice then takes its default.
_ELEMENT = re.compile(r"\$[^\s]*\[\d+\]")
_UNSUPPORTED = ("ItemBatcher", "ToleratedFailurePercentage", "Assign", "QueryLanguage", "Arguments", "Output")
MAX_NAME_CHARS = 80

State = Mapping[str, Any]


def iter_machines(definition: State, where: str = "") -> Iterator[tuple[str, State]]:
    """Yield the definition, and every branch and item processor in it."""
    yield where or "the whole", definition
    for name, state in definition["States"].items():
        for index, branch in enumerate(state.get("Branches", [])):
            yield from iter_machines(branch, f"{where}{name}[{index}]/")
        if "ItemProcessor" in state:
            yield from iter_machines(state["ItemProcessor"], f"{where}{name}/")


def iter_states(definition: State) -> Iterator[tuple[str, State]]:
    """Yield all states, at any depth."""
    for _, machine in iter_machines(definition):
        yield from machine["States"].items()


def list_targets(state: State) -> Iterator[str]:
    """Yield the possible next states."""
    if "Next" in state:
        yield state["Next"]
    if "Default" in state:
        yield state["Default"]
    for choice in state.get("Choices", []):
        yield choice["Next"]
    for catcher in state.get("Catch", []):
        yield catcher["Next"]


def find_problems(definition: State) -> list[str]:
    """Return all problems of a definition."""
    found: list[str] = []
    for where, machine in iter_machines(definition):
        found += _find_graph_problems(where, machine)
    names = [name for name, _ in iter_states(definition)]
    found += [
        f"{name} is duplicated: names must be unique across branches"
        for name in {n for n in names if names.count(n) > 1}
    ]
    for name, state in iter_states(definition):
        found += [f"{name}: {problem}" for problem in _find_state_problems(name, state)]
    if "TimeoutSeconds" not in definition:
        found.append("the whole has no TimeoutSeconds")
    return found


def _find_graph_problems(where: str, machine: State) -> Iterator[str]:
    known = machine["States"]
    if machine["StartAt"] not in known:
        yield f"{where} starts at {machine['StartAt']}, which is not a state"
        return
    reached, pending = set(), [machine["StartAt"]]
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        for target in list_targets(known[name]):
            if target not in known:
                yield f"{where}: {name} continues with {target}, which is not a state"
            else:
                pending.append(target)
    for name in known.keys() - reached:
        yield f"{where}: {name} is unreachable"
    if not any(known[name].get("End") or known[name]["Type"] in _TERMINAL for name in reached):
        yield f"{where} never ends"


def _find_state_problems(name: str, state: State) -> Iterator[str]:
    kind = state["Type"]
    if len(name) > MAX_NAME_CHARS:
        yield f"its name has {len(name)} characters; at most {MAX_NAME_CHARS}"
    if kind in ("Task", "Pass", "Wait", "Map", "Parallel") and ("Next" in state) == bool(state.get("End")):
        yield "expected either Next or End"
    if kind == "Choice" and "Default" not in state:
        yield "a Choice without Default fails if nothing matches"
    text = str({key: value for key, value in state.items() if key not in ("Branches", "ItemProcessor")})
    if _ELEMENT.search(text):
        yield "a path has an array element: assign it a name by ResultSelector first"
    for unsupported in _UNSUPPORTED:
        if unsupported in state:
            yield f"{unsupported} is not supported by moto"
    if kind == "Task":
        yield from _find_task_problems(state)
    if kind in ("Map", "Parallel") and not _catches_all(state):
        yield "expected a Catch of States.ALL"


def _find_task_problems(state: State) -> Iterator[str]:
    if "TimeoutSeconds" not in state:
        yield "expected TimeoutSeconds: a task without it has no time limit"
    if state.get("HeartbeatSeconds") and "waitForTaskToken" not in state["Resource"]:
        yield "a heartbeat needs a task token"
    retriers = state.get("Retry", [])
    if not retriers:
        yield "expected a Retry for transient errors"
    for retrier in retriers:
        if retrier.get("BackoffRate", 1) <= 1 or retrier.get("JitterStrategy") != "FULL":
            yield f"the Retry of {retrier['ErrorEquals'][0]} has no backoff or no jitter"
        if "States.ALL" in retrier["ErrorEquals"]:
            yield "a Retry of States.ALL repeats permanent errors"
    for catcher in state.get("Catch", [])[:-1]:
        if "States.ALL" in catcher["ErrorEquals"]:
            yield "States.ALL precedes another Catch"


def _catches_all(state: State) -> bool:
    return any("States.ALL" in catcher["ErrorEquals"] for catcher in state.get("Catch", []))


def list_named_errors(state: State) -> set[str]:
    """Return the errors that a state names, except those of Step Functions and Lambda."""
    rules = [*state.get("Retry", []), *state.get("Catch", [])]
    return {name for rule in rules for name in rule["ErrorEquals"] if not _RESERVED.fullmatch(name)}
