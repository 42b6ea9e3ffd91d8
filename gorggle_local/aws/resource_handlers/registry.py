"""One call of the API, and the table of who makes which kind of resource."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from gorggle_local.aws import api_validation
from gorggle_local.aws.pulumi_engine import Resource

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """An operation such as ``s3.CreateBucket`` and its parameters."""

    operation: str
    parameters: Mapping[str, Any]


CallGenerator = Generator[Call, Any, tuple[str, Mapping[str, Any]]]
_HANDLERS: dict[str, Callable[[Resource, Inputs], CallGenerator]] = {}


def handles(
    kind: str,
) -> Callable[[Callable[[Resource, Inputs], CallGenerator]], Callable[[Resource, Inputs], CallGenerator]]:
    """Say which kind of resource a function makes: ``s3/bucket:Bucket``."""

    def register(
        maker: Callable[[Resource, Inputs], CallGenerator],
    ) -> Callable[[Resource, Inputs], CallGenerator]:
        _HANDLERS[f"aws:{kind}"] = maker
        return maker

    return register


def create_calls(resource: Resource, default_tags: Mapping[str, str]) -> CallGenerator:
    """The calls that make a resource, tagged as its provider would.

    Raises:
        KeyError: nobody makes this kind.
    """
    if resource.type not in _HANDLERS:
        raise KeyError(f"nothing is known of how to make {resource.type} ({resource.name})")
    inputs = {name: value for name, value in resource.inputs.items() if value is not None}
    own = inputs.pop("tags", {})
    inputs["tags"] = own if isinstance(own, list) else {**default_tags, **own}
    return _HANDLERS[resource.type](resource, inputs)


def call(operation: str, **parameters: Any) -> Call:
    """A call whose parameters are in the API's own words already."""
    return Call(operation, {name: value for name, value in parameters.items() if value is not None})


def convert_call(
    operation: str, inputs: Inputs, renames: Mapping[str, str] | None = None, **extra: Any
) -> Call:
    """A call with every input that is left, in the provider's words.

    ``renames``: inputs that the API calls otherwise; ``extra``: parameters in the API's own words.

    Raises:
        ApiShapeError: the operation takes no such thing.
    """
    shape = api_validation.operation(operation).input_shape
    assert shape is not None
    renamed = {(renames or {}).get(name, name): value for name, value in inputs.items()}
    found = api_validation.convert(shape, renamed, operation)
    return call(operation, **found, **extra)


def tag_list(tags: Mapping[str, str], key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Tags as most services take them."""
    return [{key: name, value: text} for name, text in tags.items()]


def pop_inputs(inputs: Inputs, *names: str) -> list[Any]:
    """Take inputs out, for a call of their own; None for those that are not there."""
    return [inputs.pop(name, None) for name in names]


def assert_consumed(inputs: Inputs, *expected: str) -> None:
    """Hold that nothing is left but this.

    Raises:
        ApiShapeError: something is left that no call was told of.
    """
    if left := set(inputs) - set(expected):
        raise api_validation.ApiShapeError(f"{sorted(left)} went into no call")
