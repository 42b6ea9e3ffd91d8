"""Writes checkpoints in the reference toolkit's own layout, without the toolkit."""

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
    """Stands in for the toolkit's class of the name: a record."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.count = [1] * len(symbols)
        self.indices = {symbol: index for index, symbol in enumerate(symbols)}


class SentencepieceBPE:
    """Likewise."""

    def __init__(self, model: bytes) -> None:
        self.sp = SentencePieceProcessor(model_proto=model)


class AverageMeter:
    """Likewise."""

    def __init__(self) -> None:
        self.sum, self.count = 1.5, 3


class DictConfig:
    """Stands in for omegaconf's container."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._metadata = None
        self._content = {name: AnyNode(value) for name, value in content.items()}


class AnyNode:
    """Stands in for omegaconf's leaf."""

    def __init__(self, value: object) -> None:
        self._val = value


_HOMES = {
    Dictionary: "fairseq.data.dictionary",
    SentencepieceBPE: "fairseq.data.encoders.sentencepiece_bpe",
    AverageMeter: "fairseq.meters",
    DictConfig: "omegaconf.dictconfig",
    AnyNode: "omegaconf.nodes",
}


@contextmanager
def _classes_at_home() -> Iterator[None]:
    """While pickling, the stand-ins live where the toolkit's classes do."""
    added: list[str] = []
    for kind, home in _HOMES.items():
        parts = home.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                sys.modules[name] = types.ModuleType(name)
                added.append(name)
        setattr(sys.modules[home], kind.__name__, kind)
        kind.__module__ = home
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def root(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of the golden checkpoint with these weights, as new objects."""
    with torch_archive.open_checkpoint(golden.CHECKPOINT_WITHOUT_RESNET) as found:
        plain = {name: found[name] for name in ("args", "cfg", "optimizer_history", "extra_state")}
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
    """The same as older versions of the toolkit kept it: all sizes in ``args``, namespaces for both parts."""
    model = checkpoint["cfg"]["model"]
    args = argparse.Namespace(**{**model, "w2v_args": argparse.Namespace(**model["w2v_args"]["model"])})
    return {**checkpoint, "cfg": None, "args": args}


def with_omegaconf(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same with omegaconf's containers around the sizes."""
    model = checkpoint["cfg"]["model"]
    encoder = DictConfig({"model": DictConfig(model["w2v_args"]["model"])})
    return {**checkpoint, "cfg": DictConfig({"model": DictConfig({**model, "w2v_args": encoder})})}


def save(checkpoint: object, path: Path, *, is_legacy: bool = False) -> None:
    """Pickle as the toolkit does."""
    with _classes_at_home():
        torch.save(checkpoint, path, _use_new_zipfile_serialization=not is_legacy)


def zip_of(pickled: bytes, path: Path, storages: Mapping[str, bytes] | None = None) -> None:
    """An archive of torch's layout around a hand-written pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive_file:
        archive_file.writestr("evil/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive_file.writestr(f"evil/data/{key}", data)
    path.write_bytes(content.getvalue())
