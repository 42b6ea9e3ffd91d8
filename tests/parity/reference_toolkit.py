"""Imports fairseq, the toolkit with which AV-HuBERT was published, and builds its modules.

Its last release is from 2022. Python 3.11 and later reject unhashable defaults of dataclass fields, such as the
configuration classes of fairseq; they are made hashable during the import.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

RECIPE = "run `make parity`, which installs it into a separate virtual environment"


@contextmanager
def _hashable_dataclasses() -> Iterator[None]:
    original = dataclasses._process_class

    def process_class(cls: type, *arguments: Any, **keywords: Any) -> type:
        processed = original(cls, *arguments, **keywords)
        if processed.__hash__ is None:
            processed.__hash__ = object.__hash__
        return processed

    dataclasses._process_class = process_class
    try:
        yield
    finally:
        dataclasses._process_class = original


def import_fairseq() -> Any:
    """Import fairseq with the required submodules; skip the calling test if it is not installed."""
    level = logging.getLogger().level
    with _hashable_dataclasses(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import fairseq
            import fairseq.data.encoders.sentencepiece_bpe
            import fairseq.models.transformer.transformer_legacy
            import fairseq.models.wav2vec.wav2vec2
            import fairseq.sequence_generator
        except ImportError as error:
            pytest.skip(f"fairseq is not installed ({error}): {RECIPE}")
        finally:
            # fairseq's command-line programs set this on import.
            logging.getLogger().setLevel(level)
    return fairseq


def encoder(fairseq: Any, **sizes: Any) -> Any:
    """Return the fairseq transformer encoder in the configuration of AV-HuBERT, in evaluation mode."""
    wav2vec2 = fairseq.models.wav2vec.wav2vec2
    options = wav2vec2.Wav2Vec2Config(layer_norm_first=True, required_seq_len_multiple=1, **sizes)
    with warnings.catch_warnings():
        # weight_norm is deprecated in torch.
        warnings.simplefilter("ignore")
        return wav2vec2.TransformerEncoder(options).eval()


def dictionary(fairseq: Any, tokens: list[str]) -> Any:
    """Return a fairseq dictionary with these tokens; the first four are reserved."""
    created = fairseq.data.Dictionary()
    for token in tokens[4:]:
        created.add_symbol(token)
    assert created.symbols == tokens
    return created


def decoder(fairseq: Any, dictionary: Any, **sizes: Any) -> Any:
    """Return the fairseq transformer decoder in the configuration of AV-HuBERT, in evaluation mode."""
    options = argparse.Namespace(
        decoder_normalize_before=True,
        share_decoder_input_output_embed=True,
        no_scale_embedding=True,
        max_target_positions=2048,
        **sizes,
    )
    fairseq.models.transformer.transformer_legacy.base_architecture(options)
    import torch

    embedding = torch.nn.Embedding(len(dictionary), options.decoder_embed_dim, dictionary.pad())
    return fairseq.models.transformer.TransformerDecoder(options, dictionary, embedding).eval()
