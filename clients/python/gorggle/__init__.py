"""Client SDK for Gorggle, lip reading and speech recognition: who said what, with word timestamps.

::

    import gorggle

    with gorggle.Client("127.0.0.1:50051") as client:
        for segment in client.transcribe("clip.mp4"):
            print(gorggle.to_text_line(segment))

``Client`` and ``AsyncClient`` connect to a server (``gorggle serve``). Results are in ``gorggle.results``,
``gorggle.events`` and ``gorggle.server_info``, exceptions in ``gorggle.errors``, sources in ``gorggle.sources``; ``gorggle.v1``
is the generated API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gorggle.errors import (
    AuthenticationError,
    CallCancelledError,
    ConfigurationError,
    DataLossError,
    DeadlineError,
    GorggleError,
    InvalidRequestError,
    InvalidSourceError,
    NoFaceError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    ServerError,
    SupersededError,
    UnavailableError,
)
from gorggle.events import (
    Activity,
    Event,
    Finished,
    Interrupted,
    MediaInfo,
    Progress,
    ServerDraining,
    Started,
    StreamWarning,
)
from gorggle.results import (
    Alternative,
    FaceBox,
    Segment,
    Transcript,
    Word,
    to_json,
    to_srt,
    to_text,
    to_text_line,
    to_vtt,
)

if TYPE_CHECKING:
    from gorggle.arrays import AudioChunk, MouthCrops, VideoFrame
    from gorggle.async_client import AsyncClient, AsyncTranscriptionStream
    from gorggle.client import Client, TranscriptionStream
    from gorggle.server_info import (
        ErrorRate,
        Model,
        ModelLicense,
        ServerCapacity,
        ServerInfo,
        ServerLimits,
    )

    __version__: str

__all__ = [
    "Activity",
    "Alternative",
    "AsyncClient",
    "AsyncTranscriptionStream",
    "AudioChunk",
    "AuthenticationError",
    "CallCancelledError",
    "Client",
    "ConfigurationError",
    "DataLossError",
    "DeadlineError",
    "ErrorRate",
    "Event",
    "FaceBox",
    "Finished",
    "GorggleError",
    "Interrupted",
    "InvalidRequestError",
    "InvalidSourceError",
    "MediaInfo",
    "Model",
    "ModelLicense",
    "MouthCrops",
    "NoFaceError",
    "NotFoundError",
    "OverloadedError",
    "PreconditionError",
    "Progress",
    "Segment",
    "ServerCapacity",
    "ServerDraining",
    "ServerError",
    "ServerInfo",
    "ServerLimits",
    "Started",
    "StreamWarning",
    "SupersededError",
    "Transcript",
    "TranscriptionStream",
    "UnavailableError",
    "VideoFrame",
    "Word",
    "to_json",
    "to_srt",
    "to_text",
    "to_text_line",
    "to_vtt",
]

_LAZY = {
    "AudioChunk": "gorggle.arrays",
    "MouthCrops": "gorggle.arrays",
    "VideoFrame": "gorggle.arrays",
    "Client": "gorggle.client",
    "TranscriptionStream": "gorggle.client",
    "AsyncClient": "gorggle.async_client",
    "AsyncTranscriptionStream": "gorggle.async_client",
    "ErrorRate": "gorggle.server_info",
    "Model": "gorggle.server_info",
    "ModelLicense": "gorggle.server_info",
    "ServerCapacity": "gorggle.server_info",
    "ServerInfo": "gorggle.server_info",
    "ServerLimits": "gorggle.server_info",
}


def __getattr__(name: str) -> Any:
    """Import what needs gRPC or protobuf, or is seldom used, on first use: it takes most of the import time."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    if name == "__version__":
        from gorggle.version import get_version

        return get_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, "__version__"])
