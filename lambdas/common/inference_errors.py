"""The SDK's errors that the state machine is told of, by what it does about them."""

from __future__ import annotations

from gorggle import errors

# Try again: they pass by themselves, or the whole window is sent anew.
TRANSIENT = (
    errors.OverloadedError,
    errors.UnavailableError,
    errors.DeadlineError,
    errors.DataLossError,
    errors.SupersededError,
    errors.CallCancelledError,
)
# Do without this window: sending it again gives the same.
PERMANENT = (
    errors.NoFaceError,
    errors.PreconditionError,
    errors.InvalidRequestError,
    errors.NotFoundError,
    errors.AuthenticationError,
    errors.ConfigurationError,
    errors.ServerError,
)
SERVER_ERRORS = (*TRANSIENT, *PERMANENT)
