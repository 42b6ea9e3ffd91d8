"""fairseq, imported where that is possible: the toolkit that AV-HuBERT was published with.

It was last released in 2022. On Python 3.11 its configuration classes, which serve as defaults of other
dataclasses, are refused for having no hash; they get one while it is imported.
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

RECIPE = "run `make parity`, which installs it into a virtual environment of its own"


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


def imported() -> Any:
    """The toolkit's parts that are compared with; skips the calling test where it is not installed."""
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
    """The toolkit's transformer encoder as AV-HuBERT configures it, in evaluation mode."""
    wav2vec2 = fairseq.models.wav2vec.wav2vec2
    options = wav2vec2.Wav2Vec2Config(layer_norm_first=True, required_seq_len_multiple=1, **sizes)
    with warnings.catch_warnings():
        # torch's older weight_norm, deprecated since.
        warnings.simplefilter("ignore")
        return wav2vec2.TransformerEncoder(options).eval()


def dictionary(fairseq: Any, units: list[str]) -> Any:
    """The toolkit's dictionary with these units; the first four are its own."""
    found = fairseq.data.Dictionary()
    for unit in units[4:]:
        found.add_symbol(unit)
    assert found.symbols == units
    return found


def decoder(fairseq: Any, units: Any, **sizes: Any) -> Any:
    """The toolkit's transformer decoder as AV-HuBERT configures it, in evaluation mode."""
    options = argparse.Namespace(
        decoder_normalize_before=True,
        share_decoder_input_output_embed=True,
        no_scale_embedding=True,
        max_target_positions=2048,
        **sizes,
    )
    fairseq.models.transformer.transformer_legacy.base_architecture(options)
    import torch

    embedding = torch.nn.Embedding(len(units), options.decoder_embed_dim, units.pad())
    return fairseq.models.transformer.TransformerDecoder(options, units, embedding).eval()
