"""The table from statuses to errors, against the server's own."""

from __future__ import annotations

import inspect

import grpc
import pytest

from gorggle import errors
from gorggle._transport import status_mapping


def all_errors() -> list[type[errors.GorggleError]]:
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.GorggleError) and kind is not errors.GorggleError
    ]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_an_error_that_keeps_it(code: grpc.StatusCode) -> None:
    error = status_mapping.to_error(
        status_mapping.RpcStatus(code, "because", None), target="host:1", request_id="call-1"
    )
    assert isinstance(error, errors.GorggleError)
    assert (error.code, error.request_id) == (code, "call-1")
    assert "because" in str(error)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_without_words_still_says_something(code: grpc.StatusCode) -> None:
    assert str(status_mapping.to_error(status_mapping.RpcStatus(code, None, None), target="host:1"))


def test_every_error_is_raised_for_some_status_or_by_the_sdk_itself() -> None:
    of_statuses = {
        *status_mapping.ERROR_BY_STATUS.values(),
        *status_mapping.ERROR_BY_REASON.values(),
        errors.ServerError,
    }
    own = {errors.ConfigurationError, errors.InvalidSourceError}
    assert of_statuses | own == set(all_errors())


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in all_errors():
        line = next(line for line in errors.__doc__.splitlines() if f"─ {kind.__name__} " in line)
        depth = (line.index("─ ") - 4) // 4
        assert (
            len(kind.mro()) - len(errors.GorggleError.mro()) - 1 == depth or kind is errors.ConfigurationError
        )


def test_every_error_the_server_raises_has_a_place_here() -> None:
    server = pytest.importorskip("gorggle_server.errors", reason="the server's package is not installed")
    raised = {name for name, kind in vars(server).items() if inspect.isclass(kind)}
    same_name = {kind.__name__ for kind in all_errors()}
    other_name = {
        "GorggleError",  # the base
        "InvalidMediaError",  # InvalidRequestError: INVALID_ARGUMENT
        "OutOfRangeError",  # InvalidRequestError: OUT_OF_RANGE
        "IdleError",  # DeadlineError: DEADLINE_EXCEEDED
        "NotReadyError",  # UnavailableError: UNAVAILABLE
        "ModelFormatError",  # ServerError: INTERNAL
    }
    assert raised - same_name <= other_name
