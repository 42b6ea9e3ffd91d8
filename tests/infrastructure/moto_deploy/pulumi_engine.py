"""Runs a Pulumi program without Pulumi's engine and passes every resource to a callback.

``recording_engine`` records the resources; ``deploy`` creates them on moto. Run one program per process: the state of
Pulumi's SDK is global.
"""

from __future__ import annotations

import asyncio
import threading
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks, set_all_config
from pulumi.runtime.stack import run_pulumi_func

# Pulumi's marker of secrets in serialized values.
SECRET_MARK = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"


@dataclass
class Resource:
    """A resource of the program.

    Attributes:
        type: such as ``aws:s3/bucket:Bucket``.
        inputs: as the provider gets them: camel case, whole numbers as int, secrets in plain text.
        dependencies: URNs.
        secrets: names of secret inputs.
    """

    type: str
    name: str
    urn: str
    parent: str
    provider: str
    inputs: dict[str, Any]
    dependencies: list[str]
    ignore_changes: list[str]
    secrets: list[str] = field(default_factory=list)
    id: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_aws(self) -> bool:
        """Whether it is a resource of the AWS provider (not a component, not the provider itself)."""
        return self.type.startswith("aws:")


CreateResource = Callable[[Resource], tuple[str, Mapping[str, Any]]]
InvokeFunction = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class ProgramResult:
    """The resources and outputs of a program."""

    resources: list[Resource]
    outputs: dict[str, Any]

    def find(self, kind: str) -> list[Resource]:
        """Return the AWS resources of a kind: ``find("Bucket")``."""
        return [each for each in self.aws_resources if each.type.rpartition(":")[2] == kind]

    @property
    def aws_resources(self) -> list[Resource]:
        """All resources of the AWS provider."""
        return [each for each in self.resources if each.is_aws]


class _Monitor(mocks.MockMonitor):
    """Adds parent, dependencies and options, which Pulumi's mocks do not report."""

    def __init__(self, mocks_: _Mocks, create: CreateResource) -> None:
        super().__init__(mocks_)
        self._create = create
        # The SDK registers resources from several threads; create one at a time.
        self._lock = threading.Lock()
        self.declared: list[Resource] = []

    def RegisterResource(self, request: Any) -> Any:
        if request.type == "pulumi:pulumi:Stack":
            return super().RegisterResource(request)  # type: ignore[no-untyped-call]
        with self._lock:
            return self._declare(request)

    def _declare(self, request: Any) -> Any:
        own: _Mocks = typing.cast("_Mocks", self.mocks)
        own.pending = Resource(
            type=request.type,
            name=request.name,
            urn=self.make_urn(request.parent, request.type, request.name),
            parent=request.parent,
            provider=request.provider,
            inputs={},
            dependencies=list(request.dependencies),
            ignore_changes=list(request.ignoreChanges),
        )
        self.declared.append(own.pending)
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


class _Mocks(mocks.Mocks):
    def __init__(self, create: CreateResource, call: InvokeFunction) -> None:
        self._create, self._call = create, call
        self.pending: Resource | None = None

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        resource = self.pending
        assert resource is not None, "set by the monitor"
        resource.secrets = [name for name, value in args.inputs.items() if _is_secret(value)]
        resource.inputs = {name: to_json(value) for name, value in args.inputs.items()}
        if resource.is_aws:
            resource.id, outputs = self._create(resource)
        else:
            resource.id, outputs = f"{resource.name}-id", {}
        resource.outputs = {**resource.inputs, **outputs}
        return resource.id, resource.outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        return dict(self._call(args.token, to_json(args.args))), []


def run_program(
    program: Callable[[], Mapping[str, Any]],
    create: CreateResource,
    invoke: InvokeFunction,
    *,
    stack: str,
    config: Mapping[str, str],
) -> ProgramResult:
    """Run a program.

    Args:
        program: declares resources and returns the stack's outputs.
        create: creates a resource; returns its id and computed outputs.
        invoke: returns the result of a data source.
        stack: name of the stack.
        config: such as ``{"aws:region": "us-east-1"}``.
    """
    asyncio.set_event_loop(asyncio.new_event_loop())
    own = _Mocks(create, invoke)
    monitor = _Monitor(own, create)
    set_all_config(dict(config))
    mocks.set_mocks(own, project="gorggle", stack=stack, preview=False, monitor=monitor)
    outputs: dict[str, Any] = {}

    async def whole() -> None:
        declared = program()
        for name, value in declared.items():
            outputs[name] = to_json(await pulumi.Output.from_input(value).future())

    loop = asyncio.get_event_loop()
    loop.run_until_complete(run_pulumi_func(lambda: loop.create_task(whole())))
    return ProgramResult(monitor.declared, outputs)


def to_json(value: Any) -> Any:
    """Convert a value to JSON types, with secrets in plain text and whole numbers as int."""
    match value:
        case dict() if _is_secret(value):
            return to_json(value["value"])
        case dict():
            return {key: to_json(each) for key, each in value.items()}
        case list() | tuple():
            return [to_json(each) for each in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _is_secret(value: object) -> bool:
    return isinstance(value, dict) and value.get(SECRET_MARK) == SECRET
