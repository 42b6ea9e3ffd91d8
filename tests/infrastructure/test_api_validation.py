"""Every input of every stack against the AWS API's own shapes: names, types, enumerations, ranges, patterns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from gorggle_local.aws import api_validation
from gorggle_local.aws.resource_handlers import create_calls

# Each stack takes seconds to build, and minutes on a busy machine.
pytestmark = pytest.mark.timeout(1200)

TAGS = {"gorggle:stack": "test"}


def faults(resource: Any) -> Iterator[str]:
    """Everything that the API would refuse of the calls that make a resource."""
    making = create_calls(copy.deepcopy(resource), TAGS)
    answer = None
    while True:
        try:
            call = making.send(answer)
        except StopIteration:
            return
        operation = api_validation.operation(call.operation)
        assert operation.input_shape is not None
        yield from api_validation.validate(operation.input_shape, call.parameters, call.operation)
        answer = api_validation.sample_output(operation.output_shape)


def test_every_input_is_one_that_aws_takes(any_stack: Any) -> None:
    found = [f"{each.name}: {fault}" for each in any_stack.aws for fault in faults(each)]
    assert not found


def spoiled(built: Any, kind: str, **inputs: Any) -> list[str]:
    resource = copy.deepcopy(built("default").of(kind)[0])
    resource.inputs.update(inputs)
    return list(faults(resource))


def test_a_runtime_that_lambda_does_not_have_is_refused(built: Any) -> None:
    (fault,) = spoiled(built, "Function", runtime="python9.99")
    assert "python9.99" in fault
    assert "python3.12" in fault


@pytest.mark.parametrize(
    ("kind", "inputs", "word"),
    [
        ("Function", {"timeout": 99_999}, "Timeout"),
        ("Function", {"memorySize": 64}, "MemorySize"),
        ("Function", {"handler": 3}, "Handler"),
        ("MetricAlarm", {"comparisonOperator": "Above"}, "ComparisonOperator"),
        ("StateMachine", {"type": "SLOW"}, "type"),
        ("TargetGroup", {"protocol": "GRPC"}, "Protocol"),
        ("LaunchTemplate", {"instanceType": "g99.huge"}, "InstanceType"),
        ("BucketVersioning", {"versioningConfiguration": {"status": "On"}}, "Status"),
        ("EventSourceMapping", {"batchSize": 100_000}, "BatchSize"),
    ],
)
def test_a_value_that_aws_does_not_take_is_refused(
    built: Any, kind: str, inputs: dict[str, Any], word: str
) -> None:
    assert any(word in fault for fault in spoiled(built, kind, **inputs))


def test_a_property_that_no_call_knows_is_refused(built: Any) -> None:
    with pytest.raises(api_validation.ApiShapeError, match="colour"):
        spoiled(built, "Function", colour="blue")


def test_a_property_that_went_into_no_call_is_refused(built: Any) -> None:
    with pytest.raises(api_validation.ApiShapeError, match="acl"):
        spoiled(built, "Bucket", acl="public-read")


def test_what_is_missing_is_named(built: Any) -> None:
    resource = copy.deepcopy(built("default").of("EventSourceMapping")[0])
    del resource.inputs["functionName"]
    assert any("FunctionName is missing" in fault for fault in faults(resource))


def test_a_kind_that_nobody_makes_is_refused(built: Any) -> None:
    resource = copy.deepcopy(built("default").of("Bucket")[0])
    resource.type = "aws:braket/job:Job"
    with pytest.raises(KeyError, match="nothing is known"):
        list(faults(resource))
