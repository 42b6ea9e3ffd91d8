"""API calls, and the table of the handlers that create each kind of resource."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.infrastructure.moto_deploy import api_validation
from tests.infrastructure.moto_deploy.provider_outputs import ACCOUNT, REGION
from tests.infrastructure.moto_deploy.pulumi_engine import Resource

Inputs = dict[str, Any]
ConvertTags = Callable[[Mapping[str, str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Call:
    """An operation such as ``s3.CreateBucket`` and its parameters."""

    operation: str
    parameters: Mapping[str, Any]


# Yields calls, is sent their results, and returns the resource's id and computed outputs.
CallGenerator = Generator[Call, Any, tuple[str, Mapping[str, Any]]]
Handler = Callable[[Resource, Inputs], CallGenerator]
_HANDLERS: dict[str, Handler] = {}


def handles(kind: str) -> Callable[[Handler], Handler]:
    """Register a function as the handler of a kind of resource, such as ``s3/bucket:Bucket``."""

    def register(handler: Handler) -> Handler:
        _HANDLERS[f"aws:{kind}"] = handler
        return handler

    return register


def handle_with_call(
    kind: str,
    operation: str,
    resource_id: str,
    *,
    outputs: Mapping[str, str] | None = None,
    renames: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
    wrap: str = "",
    outer: Sequence[str] = (),
    tags: ConvertTags | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Register a kind of resource that a single call creates.

    Args:
        kind: such as ``s3/bucket:Bucket``.
        operation: such as ``s3.CreateBucket``.
        resource_id: path of the id in the result (``Policy.Arn``), or the name of an input (``=name``).
        outputs: paths of the computed outputs in the result.
        renames: API names of inputs that the provider names differently.
        ignored: inputs that are for the provider only.
        wrap: member of the request that holds the inputs.
        outer: inputs that stay outside of ``wrap``.
        tags: converts the tags to parameters; None: the resource has no tags.
        extra: further parameters, with the API's names.
    """

    def handler(_resource: Resource, inputs: Inputs) -> CallGenerator:
        given_tags, *_ = pop_inputs(inputs, "tags", *ignored)
        request = dict(inputs)
        if wrap:
            request = {name: request.pop(name) for name in outer} | {wrap: request}
        parameters = {**(extra or {}), **(tags(given_tags) if tags else {})}
        result = yield convert_call(operation, request, renames, **parameters)
        identity = inputs[resource_id[1:]] if resource_id.startswith("=") else get_path(result, resource_id)
        return identity, {name: get_path(result, path) for name, path in (outputs or {}).items()}

    handles(kind)(handler)


def create_calls(resource: Resource, default_tags: Mapping[str, str]) -> CallGenerator:
    """Return the calls that create a resource, with the provider's default tags.

    Raises:
        KeyError: no handler is registered for this kind.
    """
    if resource.type not in _HANDLERS:
        raise KeyError(f"no handler for {resource.type} ({resource.name})")
    # The handlers change what they get.
    inputs = {name: copy.deepcopy(value) for name, value in resource.inputs.items() if value is not None}
    own = inputs.pop("tags", {})
    inputs["tags"] = own if isinstance(own, list) else {**default_tags, **own}
    return _HANDLERS[resource.type](resource, inputs)


def call(operation: str, **parameters: Any) -> Call:
    """Return a call with parameters that have the API's names."""
    return Call(operation, {name: value for name, value in parameters.items() if value is not None})


def convert_call(
    operation: str, inputs: Inputs, renames: Mapping[str, str] | None = None, **extra: Any
) -> Call:
    """Return a call with all inputs, converted from the provider's names.

    Args:
        operation: such as ``s3.CreateBucket``.
        inputs: with the provider's names.
        renames: API names of inputs that the provider names differently.
        extra: further parameters, with the API's names.

    Raises:
        ApiShapeError: the operation has no such parameter.
    """
    shape = api_validation.operation(operation).input_shape
    assert shape is not None
    renamed = {(renames or {}).get(name, name): value for name, value in inputs.items()}
    return call(operation, **api_validation.convert(shape, renamed, operation), **extra)


def get_path(result: Any, path: str) -> Any:
    """Return a member of a result by its dotted path; numbers index lists."""
    for part in path.split("."):
        result = result[int(part) if part.isdecimal() else part]
    return result


def build_arn(service: str, resource: str) -> str:
    """Return the ARN of a resource in the local account."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def tag_list(tags: Mapping[str, str], key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Convert tags to the list that most services take."""
    return [{key: name, value: text} for name, text in tags.items()]


def list_tags(tags: Mapping[str, str]) -> dict[str, Any]:
    """Convert tags to a parameter ``Tags`` with a list."""
    return {"Tags": tag_list(tags)}


def map_tags(tags: Mapping[str, str]) -> dict[str, Any]:
    """Convert tags to a parameter ``Tags`` with a map."""
    return {"Tags": tags}


def ec2_tags(kind: str) -> ConvertTags:
    """Return a function that converts tags to EC2's parameter for a kind of resource."""
    return lambda tags: {"TagSpecifications": [{"ResourceType": kind, "Tags": tag_list(tags)}]}


def pop_inputs(inputs: Inputs, *names: str) -> list[Any]:
    """Remove and return inputs; None for those that are not set."""
    return [inputs.pop(name, None) for name in names]


def assert_consumed(inputs: Inputs, *expected: str) -> None:
    """Check that only the expected inputs are left.

    Raises:
        ApiShapeError: an input went into no call.
    """
    if left := set(inputs) - set(expected):
        raise api_validation.ApiShapeError(f"{sorted(left)} went into no call")
