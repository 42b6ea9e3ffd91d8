"""What both clients share: their settings and the arguments of their calls.

``client`` and ``aio`` only differ in how they wait; everything that can be decided without waiting stands here and in
``calls`` and ``reception``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

import grpc

from gorggle import sources
from gorggle._protobuf import encode
from gorggle._protobuf.encode import RecognitionOptions, StreamOptions
from gorggle._transport import channel, status_mapping
from gorggle._transport.calls import OnEvent, StreamCall, UnaryCall, recognize_call
from gorggle._transport.channel import Certificate, ChannelConfig, ConnectionOptions
from gorggle._transport.status_mapping import RpcStatus
from gorggle.arrays import Samples
from gorggle.errors import ConfigurationError, GorggleError, InvalidRequestError, UnavailableError
from gorggle.results import Modality, Transcript
from gorggle.sources import Media, Source, SourceOptions

StreamT = TypeVar("StreamT")
TranscriptT = TypeVar("TranscriptT")

# For calls that only ask about the server, where the client has no deadline of its own.
UNARY_TIMEOUT_S = 30.0


class ClientBase(abc.ABC, Generic[StreamT, TranscriptT]):
    """A client of one server. ``Client`` waits in its thread, ``AsyncClient`` in its event loop."""

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
        connect_timeout_s: float = 10.0,
        timeout_s: float | None = None,
        resume_timeout_s: float = 60.0,
        heartbeat_interval_s: float = 10.0,
    ) -> None:
        """Prepare to talk to a server; the connection is made with the first call.

        Args:
            target: the server's address, HOST:PORT; or several, any of which may serve: where one cannot be
                reached, is full, or is lost in the middle of a stream, the next one goes on.
            tls: speak TLS and trust the system's certificate authorities. Implied by the certificates below.
            root_certificates: trust this authority instead: a PEM file, or its bytes.
            client_certificate: show this to servers that ask clients for a certificate; together with client_key.
            client_key: the private key of client_certificate.
            server_name: the name on the server's certificate, where it is not the host in target.
            credentials: ready-made channel credentials, in the place of the certificates.
            token: sent with every call as "authorization: Bearer …"; over TLS or within this machine only.
            connect_timeout_s: how long one attempt to connect may take.
            timeout_s: how long a call may take; default: transcribe and recognize take what they need.
            resume_timeout_s: a stream whose server or connection is lost is carried on by any server that can be
                reached within so long; 0: it ends with an error.
            heartbeat_interval_s: where there is nothing else to say, both sides say so this often; a server that has been
                silent for three times as long is given up.

        Raises:
            ConfigurationError: settings that cannot work.
        """
        options = ConnectionOptions(
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            server_name=server_name,
            credentials=credentials,
            token=token,
            connect_timeout_s=connect_timeout_s,
        )
        self._timeout_s = _validate_timeout(timeout_s)
        targets = [target] if isinstance(target, str) else list(target)
        if not targets:
            raise ConfigurationError(f"there is no address: give HOST:PORT, such as {channel.DEFAULT_TARGET}")
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
        """The server's address; of several, the first."""
        return self._connections[0].target

    def transcribe(
        self,
        source: Source,
        *,
        modality: Modality = "av",
        model: str | None = None,
        interim_results: bool = False,
        word_timestamps: bool = True,
        max_alternatives: int = 0,
        max_speakers: int = 0,
        beam_size: int = 0,
        length_penalty: float | None = None,
        start_offset_s: float = 0.0,
        face_boxes: bool = False,
        endpoint_silence_s: float | None = None,
        activity_events: bool = False,
        live: bool = False,
        silence_timeout_s: float | None = None,
        frame_rate_hz: float | None = None,
        crops: bool = False,
        audio: Samples | None = None,
        chunk_bytes: int = 65536,
        replay_buffer_bytes: int = 64 * 2**20,
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
    ) -> StreamT:
        """Read media of any length while it is sent; segments come as soon as they are final.

        The source is checked at once; the call is made when the first segment is asked for. Media is read as fast
        as the server takes it and never held as a whole, so a live source works, and so does a very long file.

        Where the server or the connection is lost, the stream is carried on, by another server if there is one, and
        nothing is lost: a file is read again, and of a source that can be read only once (a pipe, a camera) what was
        sent is kept, up to ``replay_buffer_bytes``, until the server will not need it again.

        Args:
            source: a path; a binary file; the bytes of a media file; an iterable (with AsyncClient also an
                asynchronous one) of its chunks, or of ``gorggle.MouthCrops`` and ``gorggle.Sound``; or an array of
                frames, uint8 (T, H, W) grey or (T, H, W, 3) RGB, which takes PyAV; or None to send ``audio`` alone.
            modality: "av" reads lips and sound, "video" the lips alone, "audio" the sound alone.
            model: a name from ``models()``; default: the server's.
            interim_results: also give segments that may still change (``Segment.is_final``).
            word_timestamps: give each word with its start and end.
            max_alternatives: how many other readings to give with each final segment, at most 10.
            max_speakers: how many people to follow at once; 0: as many as the server allows.
            beam_size: width of the beam search; 0: the model's own choice.
            length_penalty: above 0 favours longer texts; default: 1.
            start_offset_s: added to every time, for a piece of a longer video.
            face_boxes: give where the speakers' faces were.
            endpoint_silence_s: a pause of so long ends a segment; default: the server's, 0.44 s.
            activity_events: tell ``on_event`` when speech begins and ends.
            live: the media comes into being while it is sent: final results come sooner, and the server warns where
                it cannot keep up.
            silence_timeout_s: the stream ends when nobody has spoken for so long.
            frame_rate_hz: of an array of frames; required there.
            crops: the array holds mouth crops (T, 96, 96), cut as the server would.
            audio: the sound to an array of frames: int16 (S,), mono, 16 kHz.
            chunk_bytes: media sent in one message, at most.
            replay_buffer_bytes: of a source that can be read only once, how much may be kept in memory. Of crops and sound
                some ten seconds are needed; container bytes are needed from the start.
            on_event: called with each ``gorggle.Event``: start, media information, progress, activity, warnings,
                interruptions.
            timeout_s: how long the whole call may take; default: the client's.

        Raises:
            InvalidSourceError: the source cannot be read.
            InvalidRequestError: options that no server would accept.
            GorggleError: later, from the iterator: what the server refused; see ``gorggle.errors``.
        """
        options = RecognitionOptions(
            modality=modality,
            model=model,
            word_timestamps=word_timestamps,
            max_alternatives=max_alternatives,
            max_speakers=max_speakers,
            beam_size=beam_size,
            length_penalty=length_penalty,
            start_offset_s=start_offset_s,
            face_boxes=face_boxes,
            endpoint_silence_s=endpoint_silence_s,
        )
        taking = SourceOptions(chunk_bytes=chunk_bytes, frame_rate_hz=frame_rate_hz, crops=crops, audio=audio)
        if replay_buffer_bytes < 0:
            raise InvalidRequestError(f"replay_buffer_bytes is {replay_buffer_bytes}: give 0 or more")
        stream = StreamOptions(
            interim_results=interim_results,
            activity_events=activity_events,
            live=live,
            silence_timeout_s=silence_timeout_s,
            heartbeat_interval_s=self._heartbeat_interval_s,
        )
        call = StreamCall(
            first_request=encode.encode_first_request(options, stream),
            media=sources.open_source(source, taking),
            on_event=on_event,
            timeout_s=self._resolve_timeout_s(timeout_s),
            replay_buffer_bytes=replay_buffer_bytes,
            heartbeat_interval_s=self._heartbeat_interval_s,
            resume_timeout_s=self._resume_timeout_s,
            server_count=len(self._connections),
        )
        return self._create_stream(call)

    def recognize(
        self,
        source: Source,
        *,
        modality: Modality = "av",
        model: str | None = None,
        word_timestamps: bool = True,
        max_alternatives: int = 0,
        max_speakers: int = 0,
        beam_size: int = 0,
        length_penalty: float | None = None,
        start_offset_s: float = 0.0,
        face_boxes: bool = False,
        endpoint_silence_s: float | None = None,
        frame_rate_hz: float | None = None,
        crops: bool = False,
        audio: Samples | None = None,
        timeout_s: float | None = None,
    ) -> TranscriptT:
        """Read a short clip in one call; it is sent as a whole.

        The arguments are those of ``transcribe``. The source may also be the address of an object that the server
        may read: "s3://BUCKET/KEY".

        Raises:
            InvalidSourceError, InvalidRequestError, GorggleError: as in ``transcribe``.
        """
        options = RecognitionOptions(
            modality=modality,
            model=model,
            word_timestamps=word_timestamps,
            max_alternatives=max_alternatives,
            max_speakers=max_speakers,
            beam_size=beam_size,
            length_penalty=length_penalty,
            start_offset_s=start_offset_s,
            face_boxes=face_boxes,
            endpoint_silence_s=endpoint_silence_s,
        )
        deadline_s = self._resolve_timeout_s(timeout_s)
        if isinstance(source, str) and source.startswith(sources.S3_SCHEME):
            return self._recognize_uri(
                recognize_call(encode.encode_uri_request(options, source), source), deadline_s
            )
        media = sources.open_source(
            source, SourceOptions(frame_rate_hz=frame_rate_hz, crops=crops, audio=audio)
        )
        return self._recognize(options, media, deadline_s)

    @abc.abstractmethod
    def _init_channels(self) -> None:
        """Make ready for calls."""

    @abc.abstractmethod
    def _create_stream(self, call: StreamCall) -> StreamT:
        """Prepare a stream; the call is made when its first segment is asked for."""

    @abc.abstractmethod
    def _recognize(self, options: RecognitionOptions, media: Media, timeout_s: float | None) -> TranscriptT:
        """Read all media and ask for its transcript."""

    @abc.abstractmethod
    def _recognize_uri(self, unary_call: UnaryCall[Transcript], timeout_s: float | None) -> TranscriptT:
        """Ask for the transcript of what the server fetches itself."""

    def _resolve_timeout_s(self, timeout_s: float | None) -> float | None:
        return self._timeout_s if timeout_s is None else _validate_timeout(timeout_s)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the client is closed: make a new one")

    def _unary_timeout_s(self) -> float:
        return UNARY_TIMEOUT_S if self._timeout_s is None else self._timeout_s

    def _map_error(self, status: RpcStatus, request_id: str = "", server: int = 0) -> GorggleError:
        target = self._connections[server].target
        return status_mapping.to_error(status, target=target, request_id=request_id)

    def _order_servers(self) -> list[int]:
        """The servers in the order in which to ask them: the one that answered last comes first."""
        first, count = self._first_server, len(self._connections)
        return [(first + number) % count for number in range(count)]

    def _create_not_ready_error(self, timeout_s: float, last: GorggleError | None) -> GorggleError:
        reason = f": {last}" if last else ""
        code = last.code if last else None
        return UnavailableError(f"{self.target} was not ready within {timeout_s:g} s{reason}", code=code)


def _validate_timeout(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s > 0):
        raise ConfigurationError(f"timeout_s is {timeout_s}: give seconds above 0, or None")
    return timeout_s
