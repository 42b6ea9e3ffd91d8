"""Exceptions of the SDK, named for the cause.

::

    GorggleError
    ├── ConfigurationError       invalid client settings: address, certificates, token, timeouts
    ├── InvalidRequestError      invalid options, media or sizes: change the request before retrying
    │   └── InvalidSourceError   the source cannot be sent: missing file, directory, no content
    ├── PreconditionError        the request is valid but cannot be served in this state
    │   └── NoFaceError          video-only recognition found no usable face
    ├── NotFoundError            unknown model or object
    ├── OverloadedError          the server is at capacity: retry after ``retry_after_s``
    ├── UnavailableError         not reachable, loading, or shutting down: retry
    ├── DeadlineError            timeout of the call, or idle timeout
    ├── SupersededError          another call resumed this session
    ├── DataLossError            missing media is no longer available for replay
    ├── AuthenticationError      missing, invalid or insufficient credentials
    ├── CallCancelledError       the client was closed, or the server cancelled the call
    └── ServerError              internal server error; include ``request_id`` in reports

Every error has ``code``, the server's ``grpc.StatusCode`` (None if no call was made), and ``request_id``, which
identifies the call in the server's log (empty if unknown). ``gorggle._transport.status_mapping`` maps status codes to
these classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class GorggleError(Exception):
    """Base class of the SDK's exceptions."""

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class ConfigurationError(GorggleError, ValueError):
    """Invalid client settings."""


class InvalidRequestError(GorggleError):
    """Invalid, too long or too large options or media; retrying does not help."""


class InvalidSourceError(InvalidRequestError):
    """The file, object or array cannot be sent; no call was made, or it was cancelled."""


class PreconditionError(GorggleError):
    """The request cannot be served in this state."""


class NoFaceError(PreconditionError):
    """Video-only recognition found no usable face; recognition from audio may still work."""


class NotFoundError(GorggleError):
    """Unknown model or object."""


class OverloadedError(GorggleError):
    """The server is at capacity.

    Attributes:
        retry_after_s: the server's requested delay before a retry; None if it gave none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.retry_after_s = retry_after_s


class UnavailableError(GorggleError):
    """The server is not reachable, loading, or shutting down."""


class DeadlineError(GorggleError):
    """The call exceeded its timeout, or was idle for too long."""


class SupersededError(GorggleError):
    """Another call resumed this session."""


class DataLossError(GorggleError):
    """Missing media is no longer available for replay: transcribe from there again."""


class AuthenticationError(GorggleError):
    """Missing, invalid or insufficient credentials."""


class CallCancelledError(GorggleError):
    """The client was closed during the call, or the server cancelled it."""


class ServerError(GorggleError):
    """Internal server error, or a protocol violation."""
