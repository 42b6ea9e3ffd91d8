"""The mapping of gRPC statuses to SDK errors, compared with the errors of the server."""

from __future__ import annotations

import inspect

import grpc
import pytest

from gorggle import errors
from gorggle._transport import status_mapping


def list_error_classes() -> list[type[errors.GorggleError]]:
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.GorggleError) and kind is not errors.GorggleError
    ]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_maps_to_an_error_with_its_code(code: grpc.StatusCode) -> None:
    error = status_mapping.to_error(
        status_mapping.RpcStatus(code, "because", None), target="host:1", request_id="call-1"
    )
    assert isinstance(error, errors.GorggleError)
    assert (error.code, error.request_id) == (code, "call-1")
    assert "because" in str(error)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_without_details_has_a_message(code: grpc.StatusCode) -> None:
    assert str(status_mapping.to_error(status_mapping.RpcStatus(code, None, None), target="host:1"))


def test_every_error_class_is_mapped_or_raised_by_the_sdk() -> None:
    mapped = {
        *status_mapping.ERROR_BY_STATUS.values(),
        *status_mapping.ERROR_BY_REASON.values(),
        errors.ServerError,
    }
    raised_by_sdk = {errors.ConfigurationError, errors.InvalidSourceError}
    assert mapped | raised_by_sdk == set(list_error_classes())


def test_the_class_tree_in_the_docstring_is_correct() -> None:
    assert errors.__doc__ is not None
    for kind in list_error_classes():
        line = next(line for line in errors.__doc__.splitlines() if f"─ {kind.__name__} " in line)
        depth = (line.index("─ ") - 4) // 4
        assert (
            len(kind.mro()) - len(errors.GorggleError.mro()) - 1 == depth or kind is errors.ConfigurationError
        )


def test_every_server_error_has_an_sdk_error() -> None:
    server = pytest.importorskip("gorggle_server.errors", reason="the server package is not installed")
    raised = {name for name, kind in vars(server).items() if inspect.isclass(kind)}
    same_name = {kind.__name__ for kind in list_error_classes()}
    other_name = {
        "GorggleError",  # the base class
        "InvalidMediaError",  # InvalidRequestError: INVALID_ARGUMENT
        "OutOfRangeError",  # InvalidRequestError: OUT_OF_RANGE
        "IdleError",  # DeadlineError: DEADLINE_EXCEEDED
        "NotReadyError",  # UnavailableError: UNAVAILABLE
        "ModelFormatError",  # ServerError: INTERNAL
    }
    assert raised - same_name <= other_name
