"""What can go wrong when the SDK is used, named for the cause.

::

    GorggleError
    ├── ConfigurationError       the client's own settings: address, certificates, token, deadlines
    ├── InvalidRequestError      the request is wrong: options, media, sizes; change it before you send it again
    │   └── InvalidSourceError   what was to be read cannot be sent: no such file, a directory, nothing in it
    ├── PreconditionError        right in itself, but not in this state
    │   └── NoFaceError          only the lips were to be read, and no face is seen
    ├── NotFoundError            the server knows no such model or object
    ├── OverloadedError          the server is full; try again after ``retry_after_s``
    ├── UnavailableError         not reachable, still loading, or shutting down: try again
    ├── DeadlineError            not done in time, or nothing was sent for too long
    ├── SupersededError          another call took over this session
    ├── DataLossError            a gap too old to be replayed
    ├── AuthenticationError      credentials are missing, wrong, or do not permit this
    ├── CallCancelledError       the call was cancelled: the client was closed, or the server gave it up
    └── ServerError              a fault of the server; quote ``request_id`` when you report it

Every error has ``code``, the ``grpc.StatusCode`` that the server sent (None where no call was made), and
``request_id``, the call's name in the server's log (empty where unknown). ``gorggle._transport.status_mapping`` holds the
table from status codes to these classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class GorggleError(Exception):
    """Base of every error that the SDK raises by itself."""

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class ConfigurationError(GorggleError, ValueError):
    """The client was set up in a way that cannot work."""


class InvalidRequestError(GorggleError):
    """The options or the media are wrong, too long or too large; sending them again will not help."""


class InvalidSourceError(InvalidRequestError):
    """The file, object or array that was to be read cannot be sent; no call was made, or it was cancelled."""


class PreconditionError(GorggleError):
    """The request cannot be served in this state."""


class NoFaceError(PreconditionError):
    """Only the lips were to be read, and no usable face is seen. Reading from the sound may still work."""


class NotFoundError(GorggleError):
    """The server knows no such model or object."""


class OverloadedError(GorggleError):
    """All of the server's places are taken.

    Attributes:
        retry_after_s: how long the server asks to wait before the next attempt; None where it does not say.
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
    """The server cannot be reached, is still loading, or is shutting down."""


class DeadlineError(GorggleError):
    """The call took longer than it was allowed, or nothing was sent for too long."""


class SupersededError(GorggleError):
    """Another call took over this session."""


class DataLossError(GorggleError):
    """What is missing is too old to be sent again: read the media again from there."""


class AuthenticationError(GorggleError):
    """Credentials are missing or wrong, or do not permit this."""


class CallCancelledError(GorggleError):
    """The call was cancelled by someone else: the client was closed meanwhile, or the server gave it up."""


class ServerError(GorggleError):
    """The server failed, or broke the protocol."""
