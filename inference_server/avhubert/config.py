"""Model configuration, read from the checkpoint."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gorggle_server.errors import ModelFormatError

BOS, PAD, EOS, UNK = 0, 1, 2, 3
"""Ids of the special tokens at the start of every fairseq dictionary."""

# Larger values mean a damaged or hostile file: the published Large model has 24 layers of width 1024.
_LIMITS = {"layers": 256, "dim": 65_536, "heads": 1024, "size": 1_000_000, "channels": 4096}


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and dropout rates of one AV-HuBERT sequence-to-sequence model.

    ``frontend_channels`` c gives a ResNet trunk of c, 2c, 4c and 8c channels (64 in the published models);
    ``alignment_heads`` lists the cross-attention heads, as (layer, head), that word timestamps are computed from;
    empty means all heads of the last decoder layer.

    Raises:
        ModelFormatError: a size is not positive, too large, or not divisible as required.
    """

    encoder_layers: int
    encoder_dim: int
    encoder_ffn_dim: int
    encoder_heads: int
    decoder_layers: int
    decoder_dim: int
    decoder_ffn_dim: int
    decoder_heads: int
    vocabulary_size: int
    audio_dim: int = 104
    frontend_channels: int = 64
    position_kernel_size: int = 128
    position_groups: int = 16
    max_target_size: int = 2048
    share_embeddings: bool = True
    scale_embeddings: bool = False
    modalities: tuple[str, ...] = ("audio", "video")
    alignment_heads: tuple[tuple[int, int], ...] = ()
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    feature_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Validate types, ranges and divisibility."""
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name))
        _check_division("encoder_dim", self.encoder_dim, "encoder_heads", self.encoder_heads)
        _check_division("decoder_dim", self.decoder_dim, "decoder_heads", self.decoder_heads)
        _check_division("encoder_dim", self.encoder_dim, "position_groups", self.position_groups)
        _check_division("decoder_dim", self.decoder_dim, "the two halves of a position", 2)
        if self.vocabulary_size <= UNK:
            raise ModelFormatError(
                f"vocabulary_size is {self.vocabulary_size}; expected more than the 4 reserved tokens"
            )
        for layer, head in self.alignment_heads:
            if not (0 <= layer < self.decoder_layers and 0 <= head < self.decoder_heads):
                raise ModelFormatError(
                    f"alignment head ({layer}, {head}) does not exist: the decoder has {self.decoder_layers} layers "
                    f"of {self.decoder_heads} heads"
                )

    @property
    def frontend_dim(self) -> int:
        """Width of the visual front-end's output before its projection."""
        return 8 * self.frontend_channels

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-serializable values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Parse the output of ``to_dict``.

        Raises:
            ModelFormatError: a field is missing, unknown or of the wrong type.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelFormatError(
                f"the model's configuration has unknown fields {unknown}: it was written by a newer version"
            )
        values = dict(values)
        try:
            if "alignment_heads" in values:
                values["alignment_heads"] = tuple((layer, head) for layer, head in values["alignment_heads"])
            if "modalities" in values:
                values["modalities"] = tuple(values["modalities"])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ModelFormatError(
                f"the model's configuration is incomplete or malformed: {error}"
            ) from error

    @classmethod
    def from_reference(
        cls, encoder: Mapping[str, Any], decoder: Mapping[str, Any], vocabulary_size: int
    ) -> ModelConfig:
        """Parse the configuration of a fine-tuned fairseq checkpoint; dropout rates are left at 0.

        Args:
            encoder: the checkpoint's ``cfg.model.w2v_args.model``.
            decoder: the checkpoint's ``cfg.model``.
            vocabulary_size: length of the target dictionary, which the configuration does not contain.

        Raises:
            ModelFormatError: a field is missing, or selects a variant that is not implemented.
        """
        _check_variants(encoder, decoder)
        return cls(
            encoder_layers=_get_field(encoder, "encoder_layers"),
            encoder_dim=_get_field(encoder, "encoder_embed_dim"),
            encoder_ffn_dim=_get_field(encoder, "encoder_ffn_embed_dim"),
            encoder_heads=_get_field(encoder, "encoder_attention_heads"),
            decoder_layers=_get_field(decoder, "decoder_layers"),
            decoder_dim=_get_field(decoder, "decoder_embed_dim"),
            decoder_ffn_dim=_get_field(decoder, "decoder_ffn_embed_dim"),
            decoder_heads=_get_field(decoder, "decoder_attention_heads"),
            vocabulary_size=vocabulary_size,
            audio_dim=encoder.get("audio_feat_dim", cls.audio_dim),
            position_kernel_size=encoder.get("conv_pos", cls.position_kernel_size),
            position_groups=encoder.get("conv_pos_groups", cls.position_groups),
            max_target_size=decoder.get("max_target_positions", cls.max_target_size),
            share_embeddings=decoder.get("share_decoder_input_output_embed", False),
            scale_embeddings=not decoder.get("no_scale_embedding", False),
        )


def _get_field(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise ModelFormatError(f"the checkpoint's configuration lacks {name}")
    return values[name]


_VARIANTS: tuple[tuple[str, str, object, object], ...] = (
    # (owner, field, supported value, fairseq's default)
    ("encoder", "layer_norm_first", True, False),
    ("encoder", "activation_fn", "gelu", "gelu"),
    ("encoder", "resnet_relu_type", "prelu", "prelu"),
    ("encoder", "modality_fuse", "concat", "concat"),
    ("encoder", "sub_encoder_layers", 0, 0),
    ("decoder", "decoder_normalize_before", True, False),
    ("decoder", "decoder_learned_pos", False, False),
    ("decoder", "no_token_positional_embeddings", False, False),
)


def _check_variants(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    for owner, name, expected, default in _VARIANTS:
        found = (encoder if owner == "encoder" else decoder).get(name, default)
        if found != expected:
            raise ModelFormatError(
                f"the checkpoint's {owner} has {name} = {reprlib.repr(found)}; only {expected!r}, the value of the published models, is supported"
            )


def _check_type(name: str, value: object) -> None:
    if name in ("share_embeddings", "scale_embeddings"):
        if not isinstance(value, bool):
            raise ModelFormatError(f"{name} is {reprlib.repr(value)}; expected true or false")
    elif name == "modalities":
        if not isinstance(value, tuple) or not value or not set(value) <= {"audio", "video"}:
            raise ModelFormatError(
                f"modalities is {reprlib.repr(value)}; expected some of 'audio' and 'video'"
            )
    elif name == "alignment_heads":
        if not isinstance(value, tuple) or not all(type(part) is int for pair in value for part in pair):
            raise ModelFormatError(
                f"alignment_heads is {reprlib.repr(value)}; expected pairs of layer and head numbers"
            )
    elif name.endswith("dropout"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ModelFormatError(f"{name} is {reprlib.repr(value)}; expected a rate from 0 up to 1")
    else:
        limit = next((limit for part, limit in _LIMITS.items() if name.endswith(part)), _LIMITS["size"])
        if type(value) is not int or not 0 < value <= limit:
            raise ModelFormatError(f"{name} is {reprlib.repr(value)}; expected an integer from 1 to {limit}")


def _check_division(name: str, value: int, by_name: str, by: int) -> None:
    if value % by:
        raise ModelFormatError(f"{name} = {value} is not divisible by {by_name} = {by}")
