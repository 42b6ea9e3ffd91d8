"""Supported containers and codecs; all others are refused.

The lists cover cameras, phones, browsers, editors and archives. Playlists (which refer to other URLs), image sequences,
game formats, raw devices and all protocols are excluded.
"""

from __future__ import annotations

from functools import cache

from av.codec import Codec, codecs_available

# FFmpeg's demuxers. The first is MP4, MOV, M4A and 3GP; "mpeg" is the program stream.
CONTAINERS = (
    *("mov", "matroska", "mpegts", "mpeg", "avi", "flv", "asf"),
    *("ogg", "wav", "mp3", "flac", "aac", "amr", "aiff"),
)
CONTAINER_NAMES = (
    "MP4, MOV, WebM, Matroska, MPEG-TS, MPEG-PS, AVI, FLV, ASF, Ogg, WAV, MP3, FLAC, AAC, AMR or AIFF"
)

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


@cache
def list_decoders() -> str:
    """Return the decoders of the supported codecs for FFmpeg's ``codec_whitelist``; a codec can have several."""
    allowed = VIDEO_CODECS | AUDIO_CODECS
    return ",".join(sorted(name for name in codecs_available if _codec_name(name) in allowed))


def _codec_name(name: str) -> str:
    try:
        return Codec(name, "r").canonical_name
    except ValueError:  # PyAV's UnknownCodecError: the name is only an encoder
        return ""
