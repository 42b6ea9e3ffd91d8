"""Exceptions of the server, named for the cause.

::

    GorggleError
    ├── InvalidRequestError     the request itself is wrong: configuration, crops, sizes
    │   └── InvalidMediaError   the media cannot be decoded, is empty or exceeds a size limit
    ├── OutOfRangeError         the media, or a time in the request, exceeds a duration limit
    ├── PreconditionError       well formed, but not allowed in this state: media before configuration
    │   └── NoFaceError         no face was found in video-only mode
    ├── NotFoundError           an object, a model or a session does not exist
    ├── AuthenticationError     no bearer token, or an unknown one
    ├── OverloadedError         no capacity; carries ``retry_after_s``
    ├── IdleError               the client sent nothing, or read nothing, for too long
    ├── NotReadyError           the models are loading or the server is shutting down
    ├── SupersededError         another call has taken over this session
    ├── DataLossError           requests are missing
    └── ModelFormatError        a checkpoint is damaged, of an unknown layout, or unsafe

Every message states what was found, what was expected and what to do. ``grpc_server.interceptors.errors`` maps these
errors to gRPC status codes in one table.
"""

from __future__ import annotations


class GorggleError(Exception):
    """Base of every error whose text may be shown to the caller."""


class InvalidRequestError(GorggleError):
    """The request violates the API contract.

    Attributes:
        field: path of the invalid field within its message; empty if no single field is invalid.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidMediaError(InvalidRequestError):
    """The media is empty, cannot be decoded, or exceeds a size limit."""


class OutOfRangeError(GorggleError):
    """The media, or a time in the request, exceeds a duration limit."""


class PreconditionError(GorggleError):
    """The request is well formed but not allowed in this state of the stream."""


class NoFaceError(PreconditionError):
    """No usable face was found in video-only mode."""


class NotFoundError(GorggleError):
    """A model, an object or a session does not exist."""


class AuthenticationError(GorggleError):
    """The caller sent no bearer token, or an unknown one."""


class OverloadedError(GorggleError):
    """No capacity: retry after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IdleError(GorggleError):
    """The client sent nothing, or read nothing, for longer than the timeout."""


class NotReadyError(GorggleError):
    """The models are still loading, or the server is shutting down."""


class SupersededError(GorggleError):
    """Another call has taken over this session."""


class DataLossError(GorggleError):
    """Part of the media is missing and cannot be recovered."""


class ModelFormatError(GorggleError):
    """A model file is damaged, of an unknown layout, or names a class that is not allowed."""
