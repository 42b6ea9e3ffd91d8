"""Supported media: containers, their media types, and codecs.

The same list as the server's (``inference_server/media/formats.py``); a test compares the two, and the API's description and
the web page with this one.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of the audio that is extracted from a video.
SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
        demuxer: FFmpeg's name.
        names: names shown to users.
        media_types: MIME types of uploads.
    """

    demuxer: str
    names: tuple[str, ...]
    media_types: tuple[str, ...]


# Formats of cameras, phones, browsers and editors. No playlists (they reference other URLs), no image sequences.
CONTAINERS = (
    Container(
        "mov",
        ("MP4", "MOV"),
        (
            *("video/mp4", "video/quicktime", "video/x-m4v", "video/3gpp", "video/3gpp2"),
            *("audio/mp4", "audio/x-m4a", "audio/3gpp", "audio/3gpp2"),
        ),
    ),
    Container(
        "matroska", ("WebM", "Matroska"), ("video/webm", "audio/webm", "video/x-matroska", "audio/x-matroska")
    ),
    Container("mpegts", ("MPEG-TS",), ("video/mp2t",)),
    Container("mpeg", ("MPEG-PS",), ("video/mpeg",)),
    Container("avi", ("AVI",), ("video/x-msvideo", "video/avi")),
    Container("flv", ("FLV",), ("video/x-flv",)),
    Container("asf", ("ASF",), ("video/x-ms-wmv", "video/x-ms-asf", "audio/x-ms-wma")),
    Container("ogg", ("Ogg",), ("video/ogg", "audio/ogg", "application/ogg")),
    Container("wav", ("WAV",), ("audio/wav", "audio/x-wav")),
    Container("mp3", ("MP3",), ("audio/mpeg",)),
    Container("flac", ("FLAC",), ("audio/flac", "audio/x-flac")),
    Container("aac", ("AAC",), ("audio/aac",)),
    Container("amr", ("AMR",), ("audio/amr",)),
    Container("aiff", ("AIFF",), ("audio/aiff", "audio/x-aiff")),
)

MEDIA_TYPES = frozenset(media_type for container in CONTAINERS for media_type in container.media_types)

_NAMES = [name for container in CONTAINERS for name in container.names]
CONTAINER_NAMES = f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}"

VIDEO_CODECS = frozenset(
    "h264 hevc vvc av1 vp8 vp9 "  # noqa: SIM905  current
    "mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4v3 h261 h263 h263p "  # older
    "flv1 vp6 vp6a vp6f theora wmv1 wmv2 wmv3 vc1 svq1 svq3 cinepak "
    "mjpeg prores dnxhd cfhd dvvideo jpeg2000 ffv1 huffyuv ffvhuff utvideo "  # cameras, editors and archives
    "magicyuv rawvideo v210 qtrle png".split()
)
AUDIO_CODECS = frozenset(
    "aac aac_latm mp1 mp2 mp3 opus vorbis speex flac alac wavpack tta "  # noqa: SIM905
    "ac3 eac3 dts truehd mlp amr_nb amr_wb gsm gsm_ms nellymoser "
    "wmav1 wmav2 wmapro wmalossless adpcm_ms adpcm_ima_wav adpcm_ima_qt adpcm_swf "
    "adpcm_g722 adpcm_g726 pcm_alaw pcm_mulaw pcm_bluray pcm_dvd pcm_u8 pcm_s8 pcm_s16le pcm_s16be "
    "pcm_s24le pcm_s24be pcm_s32le pcm_s32be pcm_f32le pcm_f32be pcm_f64le pcm_f64be".split()
)
