"""Writes checkpoints in the layout of fairseq, without fairseq."""

from __future__ import annotations

import argparse
import io
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor

from gorggle_server.avhubert.checkpoints import torch_archive
from tests.avhubert import golden


class Dictionary:
    """Stand-in for the fairseq class of this name."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.count = [1] * len(symbols)
        self.indices = {symbol: index for index, symbol in enumerate(symbols)}


class SentencepieceBPE:
    """Stand-in for the fairseq class of this name."""

    def __init__(self, model: bytes) -> None:
        self.sp = SentencePieceProcessor(model_proto=model)


class AverageMeter:
    """Stand-in for the fairseq class of this name."""

    def __init__(self) -> None:
        self.sum, self.count = 1.5, 3


class DictConfig:
    """Stand-in for the omegaconf container."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._metadata = None
        self._content = {name: AnyNode(value) for name, value in content.items()}


class AnyNode:
    """Stand-in for the omegaconf leaf node."""

    def __init__(self, value: object) -> None:
        self._val = value


_MODULES = {
    Dictionary: "fairseq.data.dictionary",
    SentencepieceBPE: "fairseq.data.encoders.sentencepiece_bpe",
    AverageMeter: "fairseq.meters",
    DictConfig: "omegaconf.dictconfig",
    AnyNode: "omegaconf.nodes",
}


@contextmanager
def _classes_in_original_modules() -> Iterator[None]:
    """Register the stand-in classes under their original module names during pickling."""
    added: list[str] = []
    for cls, module in _MODULES.items():
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                sys.modules[name] = types.ModuleType(name)
                added.append(name)
        setattr(sys.modules[module], cls.__name__, cls)
        cls.__module__ = module
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def make_checkpoint(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of the golden checkpoint with these weights, as new objects."""
    with torch_archive.open_checkpoint(golden.CHECKPOINT_WITHOUT_RESNET) as checkpoint:
        plain = {name: checkpoint[name] for name in ("args", "cfg", "optimizer_history", "extra_state")}
    vocabulary = golden.vocabulary()
    assert vocabulary.sentencepiece_model is not None
    return {
        **plain,
        "model": dict(model),
        "task_state": {
            "target_dictionary": Dictionary(vocabulary.tokens),
            "s2s_tokenizer": SentencepieceBPE(vocabulary.sentencepiece_model),
        },
        "last_optimizer_state": {"state": {0: {"step": 3, "exp_avg": torch.ones(4)}}},
    }


def with_old_namespace(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint in the layout of older fairseq versions, with all sizes in ``args`` namespaces."""
    model = checkpoint["cfg"]["model"]
    args = argparse.Namespace(**{**model, "w2v_args": argparse.Namespace(**model["w2v_args"]["model"])})
    return {**checkpoint, "cfg": None, "args": args}


def with_omegaconf(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint with the sizes in omegaconf containers."""
    model = checkpoint["cfg"]["model"]
    encoder = DictConfig({"model": DictConfig(model["w2v_args"]["model"])})
    return {**checkpoint, "cfg": DictConfig({"model": DictConfig({**model, "w2v_args": encoder})})}


def save(checkpoint: object, path: Path, *, is_legacy: bool = False) -> None:
    """Save a checkpoint as fairseq does."""
    with _classes_in_original_modules():
        torch.save(checkpoint, path, _use_new_zipfile_serialization=not is_legacy)


def write_zip(pickled: bytes, path: Path, storages: Mapping[str, bytes] | None = None) -> None:
    """Write a torch archive that contains the given pickle and storages."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive_file:
        archive_file.writestr("evil/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive_file.writestr(f"evil/data/{key}", data)
    path.write_bytes(content.getvalue())
