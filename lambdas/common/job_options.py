"""What a job may ask for, checked: what lips, sound and faces are read with, language, number of voices."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

LIP_MODALITIES = ("av", "video", "none")
AUDIO_ENGINES = ("transcribe", "server", "none")
FACE_ENGINES = ("rekognition", "server", "none")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z][A-Za-z]{1,3})?")


class OptionsError(ValueError):
    """An option that is unknown or cannot be."""


@dataclass(frozen=True)
class JobOptions:
    """How a job's video is read.

    Attributes:
        lips: "av" reads lips and sound together, "video" the lips alone, "none" neither.
        sound: who else hears: Amazon Transcribe, the server's audio mode, nobody.
        faces: who else looks for faces: Amazon Rekognition, the server's own tracks, nobody.
        language: BCP 47 tag, as Transcribe takes it; empty: it finds out.

    Raises:
        OptionsError: see there.
    """

    lips: str = "av"
    sound: str = "transcribe"
    faces: str = "rekognition"
    language: str = ""

    def __post_init__(self) -> None:
        for name, known in (("lips", LIP_MODALITIES), ("sound", AUDIO_ENGINES), ("faces", FACE_ENGINES)):
            value = getattr(self, name)
            if value not in known:
                raise OptionsError(f"{name} is {value!r}: expected one of {', '.join(known)}")
        if not isinstance(self.language, str) or (self.language and not _LANGUAGE.fullmatch(self.language)):
            raise OptionsError(f"language is {self.language!r}: expected a BCP 47 tag such as en-GB, or none")
        if self.lips == "none" and self.sound == "none":
            raise OptionsError("lips and sound are both none: at least one must be read")

    def to_document(self) -> dict[str, str]:
        """The options as JSON's types."""
        return asdict(self)


def parse_options(document: Any, defaults: JobOptions) -> JobOptions:
    """Read the options that a caller gave; what is left out is as in ``defaults``.

    Raises:
        OptionsError: no object, an unknown option, or a value that cannot be.
    """
    if document is None:
        return defaults
    if not isinstance(document, dict):
        raise OptionsError(f"options are a {type(document).__name__}: expected an object")
    known = defaults.to_document()
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise OptionsError(f"options has {', '.join(unknown)}: known are {', '.join(known)}")
    return JobOptions(**{**known, **document})
