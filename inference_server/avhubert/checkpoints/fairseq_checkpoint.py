"""Reads fairseq checkpoints: configuration, vocabulary and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gorggle_server.avhubert.checkpoints import torch_archive
from gorggle_server.avhubert.checkpoints.model_card import REFERENCE_LICENSE
from gorggle_server.avhubert.checkpoints.safe_unpickler import OpaqueObject
from gorggle_server.avhubert.checkpoints.stored_model import LazyTensor, StoredModel
from gorggle_server.avhubert.checkpoints.tensor_storage import TensorRecord
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.errors import ModelFormatError

# Weights of pre-training, counters and version markers. A weight is ignored if any part of its name is listed.
_IGNORED = frozenset(
    {
        "mask_emb",
        "final_proj",
        "target_glu",
        "label_embs_concat",
        "num_batches_tracked",
        "_float_tensor",
        "version",
    }
)
_SEPARATE_OUTPUT = "decoder.embed_out"


@contextmanager
def open_checkpoint(path: Path) -> Iterator[StoredModel]:
    """Open a ``.pt`` file; its weights can be read until the context exits.

    Raises:
        ModelFormatError: the file is damaged, names classes that are not allowed, or has no model fine-tuned for
            transcription.
    """
    with torch_archive.open_checkpoint(path) as root:
        yield _to_stored_model(root, path)


def _to_stored_model(root: object, path: Path) -> StoredModel:
    if not isinstance(root, dict) or not isinstance(root.get("model"), dict):
        raise ModelFormatError(
            "the checkpoint has no model: expected a fairseq checkpoint of a fine-tuned model"
        )
    weights = _extract_weights(root["model"])
    tokens, sentencepiece_model = _extract_vocabulary(root.get("task_state"))
    encoder, decoder, modalities = _extract_config(root)
    decoder = {**decoder, "share_decoder_input_output_embed": _SEPARATE_OUTPUT not in weights}
    return StoredModel(
        config=replace(ModelConfig.from_reference(encoder, decoder, len(tokens)), modalities=modalities),
        tokens=tokens,
        sentencepiece_model=sentencepiece_model,
        card={"name": path.stem, "license": REFERENCE_LICENSE},
        weights=weights,
        layout="reference",
    )


def _extract_weights(state: Mapping[Any, Any]) -> dict[str, LazyTensor]:
    weights: dict[str, LazyTensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise ModelFormatError("a weight of the checkpoint has a name that is not a string")
        if _IGNORED.intersection(name.split(".")):
            continue
        if not isinstance(tensor, TensorRecord):
            raise ModelFormatError(f"the checkpoint's {name} is not a tensor")
        weights[name.replace("encoder.w2v_model.", "encoder.", 1)] = tensor
    return weights


def _extract_vocabulary(task_state: object) -> tuple[list[str], bytes | None]:
    state = _unwrap_fields(task_state) or {}
    symbols = (_unwrap_fields(state.get("target_dictionary")) or {}).get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ModelFormatError(
            "the checkpoint's task_state has no target_dictionary: expected a model fine-tuned for transcription"
        )
    tokenizer = _unwrap_fields(state.get("s2s_tokenizer")) or {}
    sentencepiece = tokenizer.get("sp")
    # Older versions of SentencePiece pickled the model as plain bytes.
    model = sentencepiece.state if isinstance(sentencepiece, OpaqueObject) else None
    if isinstance(model, dict):
        model = model.get("model_proto")
    return symbols, model if isinstance(model, bytes) else None


def _extract_config(root: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Return the encoder's fields, the decoder's fields (in old checkpoints under ``args``) and the modalities."""
    configuration = _unwrap_fields(root.get("cfg"))
    decoder = _unwrap_fields(configuration.get("model") if configuration else root.get("args"))
    if not decoder:
        raise ModelFormatError(
            "the checkpoint has neither cfg.model nor args, which contain the model's dimensions"
        )
    encoder = _unwrap_fields(decoder.get("w2v_args"))
    if encoder:
        encoder = _unwrap_fields(encoder.get("model")) or encoder
    if not encoder:
        raise ModelFormatError(
            "the checkpoint's configuration has no w2v_args, which contain the encoder's dimensions: expected a model "
            "fine-tuned for transcription, not a pre-trained encoder"
        )
    task = _unwrap_fields((configuration or {}).get("task")) or decoder
    return encoder, decoder, _parse_modalities(task.get("modalities"))


def _parse_modalities(listed: object) -> tuple[str, ...]:
    """Return the modalities used in fine-tuning; both if the checkpoint does not state them."""
    if isinstance(listed, OpaqueObject) and isinstance(listed.state, dict):
        listed = listed.state.get("_content")
    named = [_unwrap_value(item) for item in listed] if isinstance(listed, list) else []
    return tuple(name for name in ("audio", "video") if name in named) or ("audio", "video")


def _unwrap_fields(value: object) -> dict[str, Any] | None:
    """Return the fields of a dict, a namespace, an object or an omegaconf container; None for anything else."""
    if isinstance(value, OpaqueObject):
        value = value.state
        if isinstance(value, dict) and isinstance(value.get("_content"), dict):
            value = value["_content"]
    if not isinstance(value, dict):
        return None
    return {key: _unwrap_value(item) for key, item in value.items() if isinstance(key, str)}


def _unwrap_value(item: object) -> object:
    """Unwrap an omegaconf node or an enumeration member; return anything else unchanged."""
    if isinstance(item, OpaqueObject) and isinstance(item.state, dict) and "_val" in item.state:
        item = item.state["_val"]
    is_enumeration = isinstance(item, OpaqueObject) and item.state is None and len(item.arguments) == 1
    return item.arguments[0] if isinstance(item, OpaqueObject) and is_enumeration else item
