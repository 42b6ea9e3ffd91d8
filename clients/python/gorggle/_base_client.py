"""Base class of both clients: their settings and the arguments of their calls.

``client`` and ``async_client`` differ only in how they wait.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import grpc

from gorggle import sources
from gorggle._protobuf import encode
from gorggle._protobuf.encode import RecognitionOptions, StreamOptions, StreamRequest
from gorggle._transport import channel, status_mapping
from gorggle._transport.calls import OnEvent, StreamCall, UnaryCall, recognize_call
from gorggle._transport.channel import Certificate, ChannelConfig, ConnectionOptions, Metadata
from gorggle._transport.status_mapping import RpcStatus
from gorggle.arrays import SAMPLE_RATE_HZ, Samples
from gorggle.errors import ConfigurationError, GorggleError, InvalidRequestError, UnavailableError
from gorggle.results import Modality
from gorggle.sources import InputFormat, Media, Source, SourceOptions

StreamT = TypeVar("StreamT")
TranscriptT = TypeVar("TranscriptT")
OptionsT = TypeVar("OptionsT")

# Timeout of calls other than recognition, unless the client sets one.
UNARY_TIMEOUT_S = 30.0


class ClientBase(abc.ABC, Generic[StreamT, TranscriptT]):
    """Base of ``Client``, which blocks its thread, and ``AsyncClient``, which uses asyncio."""

    def __init__(
        self,
        target: str | Sequence[str] = channel.DEFAULT_TARGET,
        *,
        tls: bool = False,
        root_certificates: Certificate | None = None,
        client_certificate: Certificate | None = None,
        client_key: Certificate | None = None,
        server_name: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        connect_timeout_s: float = channel.CONNECT_TIMEOUT_S,
        timeout_s: float | None = None,
        resume_timeout_s: float = 60.0,
        heartbeat_interval_s: float = 10.0,
    ) -> None:
        """Create a client; it connects on the first call.

        Args:
            target: address of the server, HOST:PORT; or several equivalent servers: if one is unreachable, overloaded or
                lost during a stream, the next one is used.
            tls: use TLS with the system's certificate authorities. Implied by the certificates below.
            root_certificates: certificate authority to trust instead: a PEM file, or its bytes.
            client_certificate: client certificate for mutual TLS, together with client_key.
            client_key: private key of client_certificate.
            server_name: name on the server's certificate, if it is not the host in target.
            credentials: gRPC channel credentials, instead of the certificates.
            token: sent with every call as "authorization: Bearer …"; only over TLS or within this machine.
            connect_timeout_s: timeout of one connection attempt.
            timeout_s: timeout of a call. Default: none for transcribe and recognize.
            resume_timeout_s: how long to try to resume an interrupted stream; 0: do not resume.
            heartbeat_interval_s: heartbeat interval in both directions; a server silent for three intervals is
                considered lost.

        Raises:
            ConfigurationError: invalid settings.
        """
        options = _select(ConnectionOptions, locals())
        self._timeout_s = _validate_timeout(timeout_s)
        self._unary_timeout_s = UNARY_TIMEOUT_S if timeout_s is None else timeout_s
        targets = [target] if isinstance(target, str) else list(target)
        if not targets:
            raise ConfigurationError(f"no address: give HOST:PORT, such as {channel.DEFAULT_TARGET}")
        self._connections: list[ChannelConfig] = [
            channel.build_channel_config(name, options) for name in targets
        ]
        self._first_server = 0
        if not (math.isfinite(resume_timeout_s) and resume_timeout_s >= 0):
            raise ConfigurationError(f"resume_timeout_s is {resume_timeout_s}: give seconds, 0 or more")
        if not 0.1 <= heartbeat_interval_s <= 60:
            raise ConfigurationError(
                f"heartbeat_interval_s is {heartbeat_interval_s}: give 0.1 to 60 seconds"
            )
        self._resume_timeout_s, self._heartbeat_interval_s = resume_timeout_s, heartbeat_interval_s
        self._is_closed = False
        self._init_channels()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.target}>"

    @property
    def target(self) -> str:
        """The address of the server, or of the first of several."""
        return self._connections[0].target

    def transcribe(
        self,
        source: Source,
        *,
        modality: Modality = "av",
        model: str | None = None,
        audio_model: str | None = None,
        interim_results: bool = False,
        word_timestamps: bool = True,
        max_alternatives: int = 0,
        max_speakers: int = 0,
        beam_size: int = 0,
        length_penalty: float | None = None,
        start_offset_s: float = 0.0,
        face_boxes: bool = False,
        endpoint_silence_s: float | None = None,
        language_codes: Sequence[str] = (),
        phrase_hints: Sequence[str] = (),
        automatic_punctuation: bool = False,
        activity_events: bool = False,
        live: bool = False,
        silence_timeout_s: float | None = None,
        frame_rate_hz: float | None = None,
        input_format: InputFormat = "frames",
        audio: Samples | None = None,
        audio_sample_rate_hz: int = SAMPLE_RATE_HZ,
        chunk_bytes: int = sources.CHUNK_BYTES,
        replay_buffer_bytes: int = 64 * 2**20,
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
    ) -> StreamT:
        """Transcribe media of any length as it is sent; segments are returned as soon as they are final.

        The source is validated now; the call starts when the first segment is requested. Media is read at the
        server's processing rate and not held in memory, so live sources and very long files work.

        If the server or the connection is lost, the stream is resumed, on another server if there is one. Sources that
        can be read again (a path, bytes, an array, a seekable file) are; for others (a pipe, a camera), sent media is
        kept until the server acknowledges it, up to ``replay_buffer_bytes``.

        Args:
            source: a path; a binary file; the bytes of a media file; an iterable (with AsyncClient also an
                asynchronous one) of its chunks, or of ``gorggle.MouthCrops`` or ``gorggle.VideoFrame`` and
                ``gorggle.AudioChunk``; with ``frame_rate_hz``, also an iterable of frames, each an array like below or
                the bytes of a JPEG file; an array of frames, uint8 (T, H, W) grey or (T, H, W, 3) RGB (requires
                PyAV); or None to send ``audio`` alone.
            modality: "av" uses lips and audio, "video" lips only, "audio" audio only.
            model: a name from ``models()``. Default: the server's default model.
            audio_model: a second model, which recognizes the audio as well, such as "moonshine-tiny-en", where ``model``
                reads lips; words are then decided one by one (``Word.source``). "none": no second model. Default: the
                server's, usually "moonshine-tiny-en" for the embedded models.
            interim_results: also return segments that may still change (``Segment.is_final``).
            word_timestamps: return the start and end of each word.
            max_alternatives: number of alternative hypotheses for each final segment, at most 10.
            max_speakers: number of people tracked at once; 0: the server's limit.
            beam_size: beam width of the decoder; 0: the server's default.
            length_penalty: below 1 favours shorter texts, above 1 longer ones. Default: 1.
            start_offset_s: added to all times, for a clip that is part of a longer video.
            face_boxes: return the positions of the speakers' faces.
            endpoint_silence_s: silence that ends a segment. Default: the server's, 0.44 s.
            language_codes: languages spoken, as BCP 47 tags, or "auto"; must be among the model's.
            phrase_hints: words and phrases that are likely to occur, if the model supports it
                (``Model.supports_adaptation``).
            automatic_punctuation: require punctuation and capitals, which a model that has them always returns
                (``Model.supports_automatic_punctuation``).
            activity_events: call ``on_event`` when speech begins and ends.
            live: the media is recorded while it is sent: optimize for latency, and warn if the server cannot keep up.
            silence_timeout_s: end the stream after this time without speech.
            frame_rate_hz: frame rate of an array or an iterable of frames; required there.
            input_format: what an array holds: "frames", or "mouth_crops" (T, 96, 96).
            audio: audio for an array of frames: int16 or float32, mono (S,) or (S, C).
            audio_sample_rate_hz: sample rate of ``audio``.
            chunk_bytes: maximum media size of one message.
            replay_buffer_bytes: memory for media that may have to be sent again. Mouth crops and audio need about ten
                seconds; container bytes and frames are needed from the start.
            on_event: called with each ``gorggle.Event``: start, media information, progress, speech activity,
                warnings, interruptions.
            timeout_s: timeout of the whole call. Default: the client's.

        Raises:
            InvalidSourceError: the source cannot be read.
            InvalidRequestError: an option is invalid.
            GorggleError: from the iterator: the server refused the request; see ``gorggle.errors``.
        """
        arguments = locals() | {"heartbeat_interval_s": self._heartbeat_interval_s}
        if replay_buffer_bytes < 0:
            raise InvalidRequestError(f"replay_buffer_bytes is {replay_buffer_bytes}: give 0 or more")
        call = StreamCall(
            start=self._start_stream,
            map_error=self._map_error,
            first_request=encode.encode_first_request(_select(StreamOptions, arguments)),
            media=sources.open_source(source, _select(SourceOptions, arguments)),
            on_event=on_event,
            timeout_s=self._resolve_timeout_s(timeout_s),
            replay_buffer_bytes=replay_buffer_bytes,
            heartbeat_interval_s=self._heartbeat_interval_s,
            resume_timeout_s=self._resume_timeout_s,
            server_count=len(self._connections),
            first_server=self._first_server,
        )
        return self._create_stream(call)

    def recognize(
        self,
        source: Source,
        *,
        modality: Modality = "av",
        model: str | None = None,
        audio_model: str | None = None,
        word_timestamps: bool = True,
        max_alternatives: int = 0,
        max_speakers: int = 0,
        beam_size: int = 0,
        length_penalty: float | None = None,
        start_offset_s: float = 0.0,
        face_boxes: bool = False,
        endpoint_silence_s: float | None = None,
        language_codes: Sequence[str] = (),
        phrase_hints: Sequence[str] = (),
        automatic_punctuation: bool = False,
        frame_rate_hz: float | None = None,
        input_format: InputFormat = "frames",
        audio: Samples | None = None,
        audio_sample_rate_hz: int = SAMPLE_RATE_HZ,
        timeout_s: float | None = None,
    ) -> TranscriptT:
        """Transcribe a short clip in one call.

        The arguments are those of ``transcribe``. The source may also be an S3 object that the server can read:
        "s3://BUCKET/KEY".

        Raises:
            InvalidSourceError, InvalidRequestError, GorggleError: as in ``transcribe``.
        """
        arguments = locals()
        options = _select(RecognitionOptions, arguments)
        deadline_s = self._resolve_timeout_s(timeout_s)
        if isinstance(source, str) and source.startswith(sources.S3_SCHEME):
            call = recognize_call(encode.encode_uri_request(options, source), source)
            transcript: TranscriptT = self._call_unary(call, deadline_s)
            return transcript
        media = sources.open_source(source, _select(SourceOptions, arguments))
        return self._recognize(options, media, deadline_s)

    @abc.abstractmethod
    def _init_channels(self) -> None:
        """Initialize the channels."""

    @abc.abstractmethod
    def _create_stream(self, call: StreamCall) -> StreamT:
        """Create a stream; the call starts when its first segment is requested."""

    @abc.abstractmethod
    def _recognize(self, options: RecognitionOptions, media: Media, timeout_s: float | None) -> TranscriptT:
        """Send all media in one call and return its transcript."""

    @abc.abstractmethod
    def _call_unary(self, unary_call: UnaryCall[Any], timeout_s: float | None) -> Any:
        """Call a server, or the next one while servers are unavailable, and return the parsed response."""

    @abc.abstractmethod
    def _stub(self, server: int) -> Any:
        """Return the stub of a server; connect on the first call."""

    def _start_stream(
        self, server: int, metadata: Metadata, timeout_s: float | None, *messages: Iterator[StreamRequest]
    ) -> Any:
        """Start a call that sends the messages; with asyncio, they are written later."""
        metadata = (*self._connections[server].metadata, *metadata)
        return self._stub(server).StreamingRecognize(*messages, timeout=timeout_s, metadata=metadata)

    def _resolve_timeout_s(self, timeout_s: float | None) -> float | None:
        return self._timeout_s if timeout_s is None else _validate_timeout(timeout_s)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the client is closed: make a new one")

    def _map_error(self, status: RpcStatus, request_id: str = "", server: int = 0) -> GorggleError:
        target = self._connections[server].target
        return status_mapping.to_error(status, target=target, request_id=request_id)

    def _order_servers(self) -> list[int]:
        """Return the servers in the order to try, the last successful one first."""
        first, count = self._first_server, len(self._connections)
        return [(first + number) % count for number in range(count)]

    def _create_not_ready_error(self, timeout_s: float, last: GorggleError | None) -> GorggleError:
        reason = f": {last}" if last else ""
        code = last.code if last else None
        return UnavailableError(f"{self.target} was not ready within {timeout_s:g} s{reason}", code=code)


def _select(kind: type[OptionsT], arguments: Mapping[str, Any]) -> OptionsT:
    """Return an options object whose fields are the arguments of the same names."""
    names = (field.name for field in dataclasses.fields(cast(Any, kind)))
    return kind(**{name: arguments[name] for name in names if name in arguments})


def _validate_timeout(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s > 0):
        raise ConfigurationError(f"timeout_s is {timeout_s}: give seconds above 0, or None")
    return timeout_s
