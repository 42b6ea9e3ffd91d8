"""Validated options of a job: engines for lips, audio and faces, and the language."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

LIP_MODALITIES = ("av", "video", "none")
AUDIO_ENGINES = ("transcribe", "server", "none")
FACE_ENGINES = ("rekognition", "server", "none")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z][A-Za-z]{1,3})?")


class OptionsError(ValueError):
    """An option is unknown or has an invalid value."""


@dataclass(frozen=True)
class JobOptions:
    """How a job's video is transcribed.

    Attributes:
        lips: lip reading mode: "av" uses video and audio together, "video" the video alone, "none" disables it.
        audio: audio engine: "transcribe" (Amazon Transcribe), "server" (the server's audio mode) or "none".
        faces: face engine: "rekognition" (Amazon Rekognition), "server" (face tracks of lip reading) or "none".
        language: BCP 47 tag for Transcribe; empty for automatic identification.

    Raises:
        OptionsError: an option has an invalid value.
    """

    lips: str = "av"
    audio: str = "transcribe"
    faces: str = "rekognition"
    language: str = ""

    def __post_init__(self) -> None:
        for name, known in (("lips", LIP_MODALITIES), ("audio", AUDIO_ENGINES), ("faces", FACE_ENGINES)):
            value = getattr(self, name)
            if value not in known:
                raise OptionsError(f"{name} is {value!r}: expected one of {', '.join(known)}")
        if not isinstance(self.language, str) or (self.language and not _LANGUAGE.fullmatch(self.language)):
            raise OptionsError(
                f"language is {self.language!r}: expected a BCP 47 tag such as en-GB, or an empty string"
            )
        if self.lips == "none" and self.audio == "none":
            raise OptionsError("lips and audio are both none: at least one is required")

    def to_document(self) -> dict[str, str]:
        """Return the options as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class OptionSettings:
    """Settings of the functions that create jobs: the default options, see ``functions.toml``."""

    lip_modality: str
    audio_engine: str
    face_engine: str
    language: str

    @property
    def default_options(self) -> JobOptions:
        """The options of a job that specifies none."""
        return JobOptions(self.lip_modality, self.audio_engine, self.face_engine, self.language)


def parse_options(document: Any, defaults: JobOptions) -> JobOptions:
    """Parse a caller's options; missing ones are taken from ``defaults``.

    Raises:
        OptionsError: not an object, an unknown option, or an invalid value.
    """
    if document is None:
        return defaults
    if not isinstance(document, dict):
        raise OptionsError(f"options is a {type(document).__name__}: expected an object")
    known = defaults.to_document()
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise OptionsError(f"options has {', '.join(unknown)}: known are {', '.join(known)}")
    return JobOptions(**{**known, **document})
