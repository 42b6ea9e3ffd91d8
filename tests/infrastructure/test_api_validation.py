"""Tests that the inputs of every stack match the AWS service models: names, types, enumerations, ranges, patterns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infrastructure.moto_deploy import api_validation
from tests.infrastructure.moto_deploy.resource_handlers import create_calls

# Recording a stack takes seconds, and minutes under load.
pytestmark = pytest.mark.timeout(1200)

TAGS = {"gorggle:stack": "test"}


def find_problems(resource: Any) -> Iterator[str]:
    """Yield everything that the API would reject in the calls that create a resource."""
    calls = create_calls(resource, TAGS)
    result = None
    while True:
        try:
            call = calls.send(result)
        except StopIteration:
            return
        operation = api_validation.operation(call.operation)
        for problem in api_validation.validate(operation.input_shape, call.parameters):
            yield f"{call.operation}: {problem}"
        result = api_validation.sample_output(operation.output_shape)


def test_aws_accepts_every_input(any_stack: Any) -> None:
    problems = [
        f"{each.name}: {problem}" for each in any_stack.aws_resources for problem in find_problems(each)
    ]
    assert not problems


def find_problems_with(build_stack: Any, kind: str, **inputs: Any) -> list[str]:
    resource = copy.deepcopy(build_stack("default").find(kind)[0])
    resource.inputs.update(inputs)
    return list(find_problems(resource))


def test_an_unknown_lambda_runtime_is_rejected(build_stack: Any) -> None:
    (problem,) = find_problems_with(build_stack, "Function", runtime="python9.99")
    assert "python9.99" in problem
    assert "python3.12" in problem


@pytest.mark.parametrize(
    ("kind", "inputs", "word"),
    [
        ("Function", {"timeout": 99_999}, "Timeout"),
        ("Function", {"memorySize": 64}, "MemorySize"),
        ("Function", {"memorySize": True}, "MemorySize"),
        ("Function", {"handler": 3}, "Handler"),
        ("Function", {"role": "admin"}, "Role"),
        ("MetricAlarm", {"comparisonOperator": "Above"}, "ComparisonOperator"),
        ("StateMachine", {"type": "SLOW"}, "type"),
        ("TargetGroup", {"protocol": "GRPC"}, "Protocol"),
        ("LaunchTemplate", {"instanceType": "g99.huge"}, "InstanceType"),
        ("BucketVersioning", {"versioningConfiguration": {"status": "On"}}, "Status"),
        ("EventSourceMapping", {"batchSize": 100_000}, "BatchSize"),
    ],
)
def test_an_invalid_value_is_rejected(build_stack: Any, kind: str, inputs: dict[str, Any], word: str) -> None:
    assert any(word in problem for problem in find_problems_with(build_stack, kind, **inputs))


def test_an_unknown_property_is_rejected(build_stack: Any) -> None:
    with pytest.raises(api_validation.ApiShapeError, match="colour"):
        find_problems_with(build_stack, "Function", colour="blue")


def test_a_property_that_no_call_uses_is_rejected(build_stack: Any) -> None:
    with pytest.raises(api_validation.ApiShapeError, match="acl"):
        find_problems_with(build_stack, "Bucket", acl="public-read")


def test_a_missing_property_is_reported(build_stack: Any) -> None:
    resource = copy.deepcopy(build_stack("default").find("EventSourceMapping")[0])
    del resource.inputs["functionName"]
    assert any(
        'Missing required parameter in input: "FunctionName"' in each for each in find_problems(resource)
    )


def test_a_resource_without_a_handler_is_rejected(build_stack: Any) -> None:
    resource = copy.deepcopy(build_stack("default").find("Bucket")[0])
    resource.type = "aws:braket/job:Job"
    with pytest.raises(KeyError, match="no handler"):
        list(find_problems(resource))
