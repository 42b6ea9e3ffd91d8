"""A linter for the state machine's definition: what AWS would refuse, what moto cannot run, and our own rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# What Step Functions and Lambda raise themselves.
_RESERVED = re.compile(r"(States|Lambda|Sandbox|Runtime)\.\w+")
_TERMINAL = ("Succeed", "Fail")
# An element of an array within a path: moto gives a list of it, and a Choice then takes its default.
_ELEMENT = re.compile(r"\$[^\s]*\[\d+\]")
_LACKED = ("ItemBatcher", "ToleratedFailurePercentage", "Assign", "QueryLanguage", "Arguments", "Output")
MAX_NAME_CHARS = 80

State = Mapping[str, Any]


def machines(definition: State, where: str = "") -> Iterator[tuple[str, State]]:
    """The definition and every branch and item processor in it."""
    yield where or "the whole", definition
    for name, state in definition["States"].items():
        for index, branch in enumerate(state.get("Branches", [])):
            yield from machines(branch, f"{where}{name}[{index}]/")
        if "ItemProcessor" in state:
            yield from machines(state["ItemProcessor"], f"{where}{name}/")


def states(definition: State) -> Iterator[tuple[str, State]]:
    """All states, however deep."""
    for _, machine in machines(definition):
        yield from machine["States"].items()


def targets(state: State) -> Iterator[str]:
    """Where a state may go on."""
    if "Next" in state:
        yield state["Next"]
    if "Default" in state:
        yield state["Default"]
    for choice in state.get("Choices", []):
        yield choice["Next"]
    for catcher in state.get("Catch", []):
        yield catcher["Next"]


def problems(definition: State) -> list[str]:
    """Everything that is wrong with a definition; empty: nothing."""
    found: list[str] = []
    for where, machine in machines(definition):
        found += _graph_problems(where, machine)
    names = [name for name, _ in states(definition)]
    found += [
        f"{name} comes twice: names are one set over all branches"
        for name in {n for n in names if names.count(n) > 1}
    ]
    for name, state in states(definition):
        found += [f"{name}: {problem}" for problem in _state_problems(name, state)]
    if "TimeoutSeconds" not in definition:
        found.append("the whole has no TimeoutSeconds")
    return found


def _graph_problems(where: str, machine: State) -> Iterator[str]:
    known = machine["States"]
    if machine["StartAt"] not in known:
        yield f"{where} starts at {machine['StartAt']}, which is none of its states"
        return
    reached, waiting = set(), [machine["StartAt"]]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for target in targets(known[name]):
            if target not in known:
                yield f"{where}: {name} goes on to {target}, which is none of its states"
            else:
                waiting.append(target)
    for name in known.keys() - reached:
        yield f"{where}: nothing leads to {name}"
    if not any(known[name].get("End") or known[name]["Type"] in _TERMINAL for name in reached):
        yield f"{where} never ends"


def _state_problems(name: str, state: State) -> Iterator[str]:
    kind = state["Type"]
    if len(name) > MAX_NAME_CHARS:
        yield f"its name has {len(name)} characters; at most {MAX_NAME_CHARS}"
    if kind in ("Task", "Pass", "Wait", "Map", "Parallel") and ("Next" in state) == bool(state.get("End")):
        yield "expected Next or End, one of them"
    if kind == "Choice" and "Default" not in state:
        yield "a Choice without Default fails where nothing fits"
    text = str({key: value for key, value in state.items() if key not in ("Branches", "ItemProcessor")})
    if _ELEMENT.search(text):
        yield "a path has an array's element: name it by ResultSelector first"
    for lacked in _LACKED:
        if lacked in state:
            yield f"{lacked} cannot be run by moto"
    if kind == "Task":
        yield from _task_problems(state)
    if kind in ("Map", "Parallel") and not _catches_all(state):
        yield "expected a Catch of States.ALL"


def _task_problems(state: State) -> Iterator[str]:
    if "TimeoutSeconds" not in state:
        yield "expected TimeoutSeconds: a task without runs for ever"
    if state.get("HeartbeatSeconds") and "waitForTaskToken" not in state["Resource"]:
        yield "a heartbeat needs a task token"
    retriers = state.get("Retry", [])
    if not retriers:
        yield "expected a Retry for what passes"
    for retrier in retriers:
        if retrier.get("BackoffRate", 1) <= 1 or retrier.get("JitterStrategy") != "FULL":
            yield f"the Retry of {retrier['ErrorEquals'][0]} has no backoff or no jitter"
        if "States.ALL" in retrier["ErrorEquals"]:
            yield "a Retry of States.ALL tries what cannot succeed"
    for catcher in state.get("Catch", [])[:-1]:
        if "States.ALL" in catcher["ErrorEquals"]:
            yield "States.ALL stands before another Catch"


def _catches_all(state: State) -> bool:
    return any("States.ALL" in catcher["ErrorEquals"] for catcher in state.get("Catch", []))


def named_errors(state: State) -> set[str]:
    """The errors that a state knows by name, without those of Step Functions and Lambda."""
    rules = [*state.get("Retry", []), *state.get("Catch", [])]
    return {name for rule in rules for name in rule["ErrorEquals"] if not _RESERVED.fullmatch(name)}
