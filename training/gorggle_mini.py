"""The embedded model gorggle-mini: training, validation, and export with a model card."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gorggle_server.avhubert import save_model
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_training.evaluate import make_validator
from gorggle_training.sentences import GRID_VOCABULARY, VOCABULARY, Corpus, Split
from gorggle_training.shards import UtteranceStore
from gorggle_training.tokenizer import train_tokenizer
from gorggle_training.train import TrainingOptions, TrainingRun, small_config

NAME = "gorggle-mini-1"
# Names in model cards.
_MODALITIES = {"audio-visual": "audio-visual", "video only": "video", "audio only": "audio"}
_DATASETS = {Corpus.GRID: "sentences of the GRID grammar", Corpus.PHRASES: "phrases"}
_CARD_CONDITIONS = ("clean", "babble at 0 dB", "babble at -10 dB")
VALIDATION_SENTENCES = 40  # per corpus
DATA_POLL_INTERVAL_S = 5.0


def train_gorggle_mini(
    out: Path, data: Path, options: TrainingOptions, report: Callable[[str], None]
) -> None:
    """Train or resume the run in a folder; waits for the first rendered utterances."""
    store = _wait_for_store(data, Split.TRAIN, report)
    tokenizer = train_tokenizer()
    held_out = {corpus: _wait_for_store(data, Split.VALIDATION, report, corpus) for corpus in Corpus}
    validate = make_validator(
        tokenizer,
        {
            corpus.value: [store[index] for index in range(min(VALIDATION_SENTENCES, len(store)))]
            for corpus, store in held_out.items()
        },
    )
    run = TrainingRun(out, store, tokenizer, small_config(len(tokenizer)), options, validate)
    run.train(report)


def export_model(
    out: Path, path: Path, evaluation: dict[str, Any] | None = None, earlier_runs: str | None = None
) -> None:
    """Write the averaged weights of a run in float16 as a model file with its model card.

    Args:
        out: run folder.
        path: file to write.
        evaluation: result of ``evaluate.evaluate_model``, for the model card.
        earlier_runs: runs that the initial weights came from, for the model card.
    """
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
    tokenizer = train_tokenizer()
    config = small_config(len(tokenizer))
    network = AVHubertNetwork(config)
    network.load_state_dict(state["averaged"])
    card = build_model_card(state["steps"], state["elapsed_s"] / 60, evaluation, earlier_runs)
    save_model(network, config, tokenizer.tokens, tokenizer.sentencepiece_model, card, path, dtype="float16")


def build_model_card(
    steps: int, minutes: float, evaluation: dict[str, Any] | None, earlier_runs: str | None = None
) -> dict[str, Any]:
    """Return the model card; see ``gorggle_server.avhubert.checkpoints.build_model_card``."""
    card: dict[str, Any] = {
        "name": NAME,
        "description": (
            "A small AV-HuBERT for rendered speakers. It transcribes commands of the GRID grammar (such as 'bin blue at f two "
            "now') and short sentences of common words. It was trained on no real person."
        ),
        "license": {
            "name": "Apache-2.0",
            "url": "https://www.apache.org/licenses/LICENSE-2.0",
            "commercial_use": True,
            "summary": "The licence of the code; trained on rendered data only.",
        },
        "languages": ["en"],
        "vocabulary": (
            f"sub-words, learnt from {len(VOCABULARY)} words: the {len(GRID_VOCABULARY)} of the GRID grammar and common ones"
        ),
        "modalities": list(_MODALITIES.values()),
        "trained_on": (
            "rendered speakers: faces drawn by this project's renderer, speech by espeak-ng; "
            f"{steps} steps in {minutes:.0f} minutes"
            f"{f', initialized with the weights of {earlier_runs}' if earlier_runs else ''}; no recording of any person"
        ),
    }
    if evaluation is not None:
        card["error_rates"] = [
            {
                "dataset": f"{results['sentences']} {_DATASETS[Corpus(corpus)]}, rendered; speakers and sentences held out",
                "modality": _MODALITIES[measured["modality"]],
                "condition": measured["condition"],
                "word_error_rate_percent": round(100 * measured["words"]["rate"], 2),
                "source": f"python -m training evaluate, beam {results['beam_size']}",
            }
            for corpus, results in evaluation.items()
            for measured in results["conditions"].values()
            if measured["condition"] in _CARD_CONDITIONS
        ]
    return card


def _wait_for_store(
    data: Path, split: Split, report: Callable[[str], None], corpus: Corpus = Corpus.GRID
) -> UtteranceStore:
    store = UtteranceStore(data, split, corpus)
    if not len(store):
        report(f"waiting for utterances in {data}: run `python -m training prepare` in parallel")
    while not len(store):
        time.sleep(DATA_POLL_INTERVAL_S)
        store.refresh()
    return store
