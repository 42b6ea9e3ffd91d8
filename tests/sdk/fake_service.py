"""A fake LipReading service that runs scripted responses, and builders of its messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from gorggle.v1 import (
    config_pb2,
    lip_reading_pb2,
    lip_reading_pb2_grpc,
    media_pb2,
    model_pb2,
    server_pb2,
    transcript_pb2,
)

Request = lip_reading_pb2.StreamingRecognizeRequest
Response = lip_reading_pb2.StreamingRecognizeResponse
Script = Callable[[Iterator[Request], grpc.ServicerContext], Iterator[Response]]


def error_trailer(
    code: grpc.StatusCode, text: str, *, reason: str, request_id: str = "", retry_after_s: float | None = None
) -> tuple[str, bytes]:
    """Return the trailer with the google.rpc.Status that the server sends with an error."""
    status = status_pb2.Status(code=code.value[0], message=text)
    info = error_details_pb2.ErrorInfo(reason=reason, domain="gorggle", metadata={"request_id": request_id})
    status.details.add().Pack(info)
    if retry_after_s is not None:
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration(retry_after_s)))
    return "grpc-status-details-bin", status.SerializeToString()


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str, *, reason: str) -> None:
    """Abort a call with the status and error details that the server sends."""
    context.set_trailing_metadata([error_trailer(code, text, reason=reason)])
    context.abort(code, text)


def duration(time_s: float) -> Duration:
    return Duration(seconds=int(time_s), nanos=round(time_s % 1 * 1e9))


def started(request_id: str = "call-1", model: str = "grid", audio_model: str = "") -> Response:
    return Response(
        started=lip_reading_pb2.StreamStarted(request_id=request_id, model=model, audio_model=audio_model)
    )


def finished(duration_s: float = 3.0, segments: int = 1) -> Response:
    return Response(
        finished=lip_reading_pb2.StreamFinished(
            media_duration=duration(duration_s), segment_count=segments, face_count=1
        )
    )


def segment(
    text: str = "bin blue at f two now",
    *,
    start_s: float = 0.52,
    end_s: float = 2.1,
    speaker: str = "face-1",
    is_final: bool = True,
    segment_id: str = "1",
) -> Response:
    """Build a segment with words of equal duration."""
    texts = text.split()
    step_s = (end_s - start_s) / max(1, len(texts))
    words = [
        transcript_pb2.Word(
            text=word,
            start_offset=duration(start_s + index * step_s),
            end_offset=duration(start_s + (index + 1) * step_s),
            confidence=0.75,
        )
        for index, word in enumerate(texts)
    ]
    return Response(
        segment=transcript_pb2.SpeechSegment(
            segment_id=segment_id,
            revision=1,
            is_final=is_final,
            stability=1.0 if is_final else 0.5,
            start_offset=duration(start_s),
            end_offset=duration(end_s),
            text=text,
            confidence=0.875,
            words=words,
            speaker_id=speaker,
            modality=config_pb2.MODALITY_AUDIO_VISUAL,
        )
    )


def model_message(name: str = "grid") -> model_pb2.Model:
    return model_pb2.Model(
        name=name,
        description="Reads the GRID grammar.",
        architecture="av_hubert",
        parameter_count=4_200_000,
        encoder_layer_count=4,
        encoder_width=128,
        decoder_layer_count=2,
        decoder_width=128,
        vocabulary_size=64,
        modalities=[config_pb2.MODALITY_AUDIO_VISUAL, config_pb2.MODALITY_VIDEO_ONLY],
        video_frame_rate_hertz=25,
        audio_sample_rate_hertz=16_000,
        mouth_crop_size_px=96,
        language_codes=["en"],
        vocabulary="the 51 words of the GRID corpus",
        trained_on="rendered speakers",
        error_rates=[
            model_pb2.ErrorRate(
                dataset="held-out speakers",
                modality=config_pb2.MODALITY_VIDEO_ONLY,
                condition="clean",
                word_error_rate_percent=36.5,
                source="make evaluate",
            )
        ],
        license=model_pb2.ModelLicense(
            name="Apache-2.0",
            url="https://www.apache.org/licenses/LICENSE-2.0",
            commercial_use=model_pb2.COMMERCIAL_USE_FORBIDDEN,
            summary="For research only.",
        ),
        sha256="ab" * 32,
    )


@dataclass
class FakeLipReading(lip_reading_pb2_grpc.LipReadingServicer):
    """Runs ``script`` for streams and ``clip`` for clips, and records the requests."""

    script: Script = field(init=False)
    clip: Callable[[lip_reading_pb2.RecognizeRequest, grpc.ServicerContext], Any] = field(init=False)
    not_ready_for: int = 0
    page_size: int = 0
    default_audio_model: str = ""
    config: config_pb2.StreamingConfig | None = None
    requests: list[Request] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    began: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.script = self.read_all
        self.clip = self.read_clip

    @property
    def media(self) -> bytes:
        return b"".join(request.media for request in self.requests)

    def read_all(self, requests: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Response]:
        """Read all requests, then send one segment."""
        assert self.config is not None
        audio_model = self.config.recognition.audio_model or self.default_audio_model
        yield started(audio_model="" if audio_model == "none" else audio_model)
        self.requests += requests
        yield segment()
        yield finished()

    def read_clip(self, request: lip_reading_pb2.RecognizeRequest, context: grpc.ServicerContext) -> Any:
        return lip_reading_pb2.RecognizeResponse(
            request_id="call-2",
            model=request.config.model or "grid",
            segments=[segment("later", start_s=5, end_s=6).segment, segment().segment],
            warnings=[
                lip_reading_pb2.Warning(
                    kind=lip_reading_pb2.Warning.KIND_NO_AUDIO, message="there is no audio"
                )
            ],
            media_duration=duration(7),
        )

    def StreamingRecognize(self, request_iterator: Any, context: Any) -> Iterator[Response]:
        self._record_call(context)
        first = next(request_iterator)
        assert first.WhichOneof("payload") == "config"
        self.config = first.config
        yield from self.script(request_iterator, context)

    def Recognize(self, request: Any, context: Any) -> Any:
        self._record_call(context)
        return self.clip(request, context)

    def ListModels(self, request: Any, context: Any) -> Any:
        self._record_call(context)
        models = [model_message(), model_message("large")]
        start = int(request.page_token or 0)
        end = start + (self.page_size or len(models))
        return model_pb2.ListModelsResponse(
            models=models[start:end], next_page_token=str(end) if end < len(models) else ""
        )

    def GetModel(self, request: Any, context: Any) -> Any:
        if request.name not in {"", "grid", "large", "speech"}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {request.name}")
        model = model_message(request.name or "grid")
        model.has_open_vocabulary = request.name == "speech"
        return model

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        if self.not_ready_for > 0:
            self.not_ready_for -= 1
            abort(
                context, grpc.StatusCode.UNAVAILABLE, "the models are still being loaded", reason="NOT_READY"
            )
        return server_pb2.GetServerInfoResponse(
            version="0.1.0",
            default_model="grid",
            device="cpu",
            uptime=duration(12.5),
            limits=server_pb2.ServerLimits(max_speakers=4, idle_timeout=duration(30)),
            capacity=server_pb2.ServerCapacity(max_streams=8, active_streams=1),
        )

    def _record_call(self, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata())
        self.ended.clear()
        if not context.add_callback(self.ended.set):
            self.ended.set()
        self.began.set()


def warning(
    text: str, kind: lip_reading_pb2.Warning.Kind.ValueType = lip_reading_pb2.Warning.KIND_NO_AUDIO
) -> Response:
    return Response(warning=lip_reading_pb2.Warning(kind=kind, message=text))


def progress(received_s: float, processed_s: float, bytes_received: int = 0) -> Response:
    return Response(
        progress=lip_reading_pb2.Progress(
            received_bytes=bytes_received,
            received_duration=duration(received_s),
            processed_duration=duration(processed_s),
            face_count=1,
        )
    )


def media_info(duration_s: float | None = 3.0) -> Response:
    return Response(
        media_info=media_pb2.MediaInfo(
            container="mov,mp4",
            video_codec="h264",
            audio_codec="aac",
            width_px=640,
            height_px=480,
            frame_rate_hertz=30,
            duration=None if duration_s is None else duration(duration_s),
            rotation_degrees=90,
        )
    )


def activity(kind: lip_reading_pb2.SpeechActivityEvent.SpeechActivity.ValueType, time_s: float) -> Response:
    return Response(
        speech_activity=lip_reading_pb2.SpeechActivityEvent(
            type=kind, offset=duration(time_s), speaker_id="face-1"
        )
    )


def ending(
    code: grpc.StatusCode, details: str, *trailers: tuple[str, str | bytes], first: bool = True
) -> Script:
    """Return a script that ends the call with a status, at once or after the first media message."""

    def script(requests: Iterator[Request], context: Any) -> Iterator[Response]:
        yield started()
        if not first:
            next(requests, None)
        context.set_trailing_metadata(trailers)
        context.abort(code, details)

    return script
