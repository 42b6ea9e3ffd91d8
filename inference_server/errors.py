"""What can go wrong in the server, named for the cause.

::

    GorggleError
    ├── InvalidRequestError     the request itself is wrong: configuration, crops, sizes
    │   └── InvalidMediaError   the media cannot be decoded, is empty or is beyond a limit
    ├── OutOfRangeError         the media or a time lies beyond a limit of duration
    ├── PreconditionError       right in itself, but not now: media before configuration
    │   └── NoFaceError         no face is seen where only the lips were to be read
    ├── NotFoundError           an object, a model, a session is not there
    ├── AuthenticationError     the caller is not known: no bearer token, or none of ours
    ├── OverloadedError         all places are taken; carries ``retry_after_s``
    ├── IdleError               the client sent nothing for too long
    ├── DeadlineError           work was not done by when it was wanted
    ├── NotReadyError           the model is loading or the server is draining
    ├── SupersededError         another call has taken over this session
    ├── DataLossError           requests are missing that should have come
    └── ModelFormatError        a checkpoint is not what it claims, or asks to run code

Every message says what was found, what was expected and what to do. ``service.errors`` maps these
to gRPC status codes in one table; nothing else may.
"""

from __future__ import annotations


class GorggleError(Exception):
    """Base of every error whose text may be shown to the caller."""


class InvalidRequestError(GorggleError):
    """The request contradicts the API: the caller must change it.

    Attributes:
        field: path of the invalid field within its message; empty if no single field is invalid.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidMediaError(InvalidRequestError):
    """The media is empty, cannot be decoded, or exceeds a limit of size."""


class OutOfRangeError(GorggleError):
    """The media lasts longer, or a time lies further, than is allowed."""


class PreconditionError(GorggleError):
    """The request is well formed but cannot be served in this state of the stream."""


class NoFaceError(PreconditionError):
    """No usable face was seen, and the request rests on the lips alone."""


class NotFoundError(GorggleError):
    """A model, an object or a session does not exist."""


class AuthenticationError(GorggleError):
    """The caller shows no bearer token, or none that is known."""


class OverloadedError(GorggleError):
    """All places are taken: try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IdleError(GorggleError):
    """The client sent nothing for longer than the server waits."""


class DeadlineError(GorggleError):
    """Work was not done by the time until which it was wanted."""


class NotReadyError(GorggleError):
    """The model is still loading, or the server is shutting down."""


class SupersededError(GorggleError):
    """Another call carries this session on."""


class DataLossError(GorggleError):
    """A part of the media is missing, and nobody has it any more."""


class ModelFormatError(GorggleError):
    """A model file is damaged, of an unknown layout, or names a class that is not allowed."""
