"""Fine-tunes a model on recorded clips, with or without rendered ones."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gorggle_server.avhubert import Model, load_model, save_model
from gorggle_server.avhubert.config import UNK
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.inference.model_registry import resolve_source
from gorggle_server.model_catalogue.store import ModelStore, get_model_dir
from gorggle_server.vision.landmark_model import LandmarkModelName
from gorggle_training.clip_shards import prepare_clips
from gorggle_training.confidence_calibration import calibrate_model_file
from gorggle_training.evaluate import make_validator
from gorggle_training.labelled_clips import (
    ClipOrRejection,
    CorpusError,
    LabelledClip,
    RejectedClip,
    read_grid_corpus,
    read_lrs3,
    read_manifest_clips,
)
from gorggle_training.loss import PRELU_SLOPE, is_slope
from gorggle_training.sentences import Split
from gorggle_training.shards import MixedStore, ShardFolder, Store, UtteranceStore
from gorggle_training.train import TrainingOptions, TrainingRun, keep_freed_memory

MODEL_FILE = "model.safetensors"
MAX_LISTED_REJECTIONS = 10
# Entries of the model card that hold for its weights only.
_MEASURED = ("error_rates", "confidence_calibration")


@dataclass(frozen=True)
class FineTuningData:
    """Utterances to train and to validate on, and a description of the clips for the model card."""

    training: Store
    validation: ShardFolder | None
    description: str


def load_base_model(name: str) -> Model:
    """Load the model to begin with: a file, or an embedded or installed model by its name.

    Raises:
        GorggleError: the model does not exist, or it cannot be fine-tuned.
    """
    path = Path(resolve_source(name, ModelStore(get_model_dir())))
    model = load_model(path)
    if set(model.config.modalities) != {"audio", "video"}:
        raise ModelFormatError(
            f"{path} is a model of {', '.join(model.config.modalities)} only; expected both"
        )
    slopes = [weight for name, weight in model.network.named_parameters() if is_slope(name)]
    if any(bool(weight.ne(PRELU_SLOPE).any()) for weight in slopes):
        raise ModelFormatError(
            f"{path} cannot be fine-tuned: its activation slopes are not {PRELU_SLOPE}, as in models of this project"
        )
    model.vocabulary.encode("a")  # raises if words cannot be tokenized
    return model


def load_data(
    options: argparse.Namespace, vocabulary: Vocabulary, report: Callable[[str], None]
) -> FineTuningData:
    """Read the labels of all clips and crop the mouths; reports the clips that cannot be used.

    Raises:
        ManifestError, CorpusError: a source is invalid, or has no usable clip.
    """
    cache = options.cache or options.out / "clips"
    sources: list[Iterable[ClipOrRejection]] = [
        *map(read_manifest_clips, options.manifest),
        *map(read_grid_corpus, options.grid),
        *map(read_lrs3, options.lrs3),
    ]
    if not sources:
        raise CorpusError("no clips: pass --manifest, --grid or --lrs3")
    labelled = [clip for source in sources for clip in source]
    held_out = [clip for path in options.validation for clip in read_manifest_clips(path)]
    shared = {clip.media.resolve() for clip in labelled} & {clip.media.resolve() for clip in held_out}
    if shared:
        raise CorpusError(
            f"{len(shared)} clips are in the training and the validation data, such as {min(shared)}: "
            "remove them from one"
        )
    prepare = functools.partial(
        _prepare, vocabulary, cache, options.workers, report, LandmarkModelName(options.landmark_model)
    )
    recorded = prepare(labelled)
    validation = prepare(held_out) if held_out else None
    training: Store = recorded
    if options.rendered is not None:
        rendered = UtteranceStore(options.rendered, Split.TRAIN)
        if not len(rendered):
            raise CorpusError(
                f"{options.rendered} has no rendered utterances: "
                f"run `python -m gorggle_training prepare --data {options.rendered}`"
            )
        training = MixedStore(recorded, rendered, options.recorded_share)
    return FineTuningData(training, validation, _describe(len(recorded), training))


def fine_tune(
    base: Model, data: FineTuningData, options: argparse.Namespace, report: Callable[[str], None]
) -> Path:
    """Train or resume the run in the folder; write the model at every checkpoint and return its path."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InvalidRequestError("--device is cuda, but PyTorch found no GPU: use cpu")
    keep_freed_memory()
    path: Path = options.out / MODEL_FILE
    validate = _make_validator(base.vocabulary, data.validation)

    def save_and_validate(network: AVHubertNetwork) -> dict[str, float]:
        card = build_card(base.card, options.name, data.description, training_run.steps, training_run.minutes)
        tokens, sentencepiece_model = base.tokens, base.vocabulary.sentencepiece_model
        save_model(network, base.config, tokens, sentencepiece_model, card, path, dtype="float16")
        return validate(network)

    training = TrainingOptions(
        minutes=options.minutes,
        frames_per_batch=options.frames_per_batch,
        device=options.device,
        threads=options.threads,
        learning_rate=options.learning_rate,
    )
    training_run = TrainingRun(
        options.out, data.training, base.vocabulary, base.config, training, save_and_validate, initial=base
    )
    training_run.train(report)
    if data.validation is not None:
        report("calibrating the confidences")
        calibrate_model_file(path, data.validation.read_all())
    return path


def build_card(
    base: dict[str, Any], name: str, description: str, steps: int, minutes: float
) -> dict[str, Any]:
    """Return the model card of a fine-tuned model; what was measured of the base model does not apply."""
    base_name = base.get("name", "a model without a name")
    licence = base.get("license", {})
    summary = f"{licence.get('summary', '')} The terms of the training clips may apply as well.".strip()
    return {
        **{key: value for key, value in base.items() if key not in _MEASURED},
        "name": name,
        "description": f"{base_name}, fine-tuned on {description}.",
        "license": {**licence, "summary": summary},
        "trained_on": f"{description}: {steps} steps in {minutes:.0f} minutes, beginning with {base_name} "
        f"(trained on {base.get('trained_on', 'unknown data')})",
    }


def _prepare(
    vocabulary: Vocabulary,
    cache: Path,
    workers: int,
    report: Callable[[str], None],
    landmark_model: LandmarkModelName,
    clips: Iterable[ClipOrRejection],
) -> ShardFolder:
    """Return the utterances of all usable clips.

    Raises:
        CorpusError: there are none.
    """
    checked = [_check_spelling(clip, vocabulary) for clip in clips]
    usable = [clip for clip in checked if isinstance(clip, LabelledClip)]
    rejected = [clip for clip in checked if isinstance(clip, RejectedClip)]
    store = None
    if usable:
        store, unreadable = prepare_clips(usable, cache, workers, report, landmark_model)
        rejected += unreadable
    for clip in rejected[:MAX_LISTED_REJECTIONS]:
        report(f"left out {clip.media}: {clip.reason}")
    if len(rejected) > MAX_LISTED_REJECTIONS:
        report(f"left out {len(rejected) - MAX_LISTED_REJECTIONS} more")
    if store is None or not len(store):
        reason = f", such as {rejected[0].media}: {rejected[0].reason}" if rejected else ""
        raise CorpusError(f"none of the {len(checked)} clips can be used{reason}")
    report(f"using {len(store)} of {len(checked)} clips")
    return store


def _check_spelling(clip: ClipOrRejection, vocabulary: Vocabulary) -> ClipOrRejection:
    if isinstance(clip, RejectedClip):
        return clip
    unknown = next((word.text for word in clip.words if UNK in vocabulary.encode(word.text)), None)
    if unknown is None:
        return clip
    return RejectedClip(
        clip.media, f"the model has no tokens for {unknown!r}: spell it in letters the model knows"
    )


def _make_validator(
    vocabulary: Vocabulary, store: ShardFolder | None
) -> Callable[[AVHubertNetwork], dict[str, float]]:
    if store is None:
        return lambda _network: {}
    return make_validator(vocabulary, {"clips": store.read_all()})


def _describe(recorded: int, training: Store) -> str:
    clips = f"{recorded} recorded clips"
    return f"{clips} and rendered speakers" if isinstance(training, MixedStore) else clips
