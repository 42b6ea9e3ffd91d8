"""Held-out clips for end-to-end evaluation: videos, and a manifest with the timestamps of every word.

Speakers and sentences are those of the test split, or of the validation split for tuning. Evaluate with ``gorggle evaluate FOLDER/manifest.jsonl``.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gorggle_training.clips import Scene, dialogue_scene, to_ground_truth, write_clip
from gorggle_training.face_rendering import Speaker
from gorggle_training.sentences import FIRST_SPEAKER_SEED, VOCABULARY, Corpus, Split, random_sentence
from gorggle_training.shards import init_worker
from gorggle_training.speech_synthesis import Voice, synthesize

SENTENCES_PER_CLIP = {1: 4, 2: 6}  # by the number of speakers
SIZE_PX = {1: (640, 480), 2: (1280, 720)}
# Longer than the pause that ends an utterance.
MIN_PAUSE_S, MAX_PAUSE_S = 0.6, 1.2
# Disjoint from the speakers of rendered utterances of any split.
FIRST_CLIP_SEED = {Split.VALIDATION: 3_000_000, Split.TEST: FIRST_SPEAKER_SEED[Split.TEST] + 100_000}
# Upper bound of clips of one kind: each kind has its own speakers.
SEEDS_PER_KIND = 50_000


@dataclass(frozen=True)
class ClipPlan:
    """A clip to render; everything else is derived from this."""

    corpus: Corpus
    speakers: int
    number: int
    sentences: int
    split: Split = Split.TEST

    @property
    def name(self) -> str:
        """Return for example "grid-one-00012"."""
        return f"{self.corpus.value}-{'one' if self.speakers == 1 else 'two'}-{self.number:05d}"

    @property
    def speaker_seeds(self) -> tuple[int, ...]:
        """Return the seeds of the speakers, from left to right; no speaker is in two clips."""
        kind = list(Corpus).index(self.corpus) * len(SIZE_PX) + self.speakers - 1
        first = FIRST_CLIP_SEED[self.split] + kind * SEEDS_PER_KIND + self.number * self.speakers
        return tuple(range(first, first + self.speakers))


def plan_clips(
    corpora: Sequence[Corpus], sentences: int, speakers: int, split: Split = Split.TEST
) -> list[ClipPlan]:
    """Return clips with the given number of sentences of each corpus; the last one may be shorter."""
    per_clip = SENTENCES_PER_CLIP[speakers]
    return [
        ClipPlan(corpus, speakers, number, min(per_clip, sentences - number * per_clip), split)
        for corpus in corpora
        for number in range(-(-sentences // per_clip))
    ]


def build_scene(plan: ClipPlan) -> Scene:
    """Render one speaker, or speakers side by side who take turns, with pauses around all sentences."""
    rng = np.random.default_rng([plan.speaker_seeds[0], 2])
    speakers, voices = [], []
    for seed in plan.speaker_seeds:
        # As in training: face and voice are drawn from one seed.
        own_rng = np.random.default_rng(seed)
        speakers.append(Speaker.random(own_rng))
        voices.append(Voice.random(own_rng))
    sentences = [random_sentence(plan.split, rng, plan.corpus) for _ in range(plan.sentences)]
    turns = [(index % plan.speakers, " ".join(sentence)) for index, sentence in enumerate(sentences)]
    pause_s = float(rng.uniform(MIN_PAUSE_S, MAX_PAUSE_S))
    return dialogue_scene(speakers, voices, turns, pause_s, SIZE_PX[plan.speakers], rng)


def build_manifest_entry(plan: ClipPlan, scene: Scene) -> dict[str, Any]:
    """Return the clip's manifest line; words are lower case, as in the model's output."""
    seeds = plan.speaker_seeds
    truth = to_ground_truth(scene, "python -m training clips")
    return {
        "media": f"{plan.name}.mp4",
        "id": plan.name,
        "group": plan.corpus.value,
        "sentences": [
            {
                **sentence,
                "text": sentence["text"].lower(),
                "speaker": f"{plan.split.value}-{seeds[sentence['speaker']]}",
                "words": [{**word, "text": word["text"].lower()} for word in sentence["words"]],
            }
            for sentence in truth["sentences"]
        ],
        "notes": {
            "made_by": truth["made_by"],
            "duration_s": truth["duration_s"],
            "speaker_seeds": list(seeds),
        },
    }


def write_lexicon(path: Path, words: Iterable[str]) -> None:
    """Write pronunciations for ``gorggle evaluate --lexicon``: IPA of a British voice, letters by name."""
    voice = Voice()
    with path.open("w", encoding="utf-8") as file:
        for word in sorted(words):
            phonemes = synthesize([word.upper() if word == "a" else word], voice).phonemes
            file.write(f"{word}\t{' '.join(phoneme.symbol for phoneme in phonemes)}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m training clips``."""
    parser.add_argument("--out", type=Path, required=True, help="folder for clips and manifest")
    parser.add_argument("--sentences", type=int, default=500, metavar="N", help="per corpus (default: 500)")
    parser.add_argument(
        "--corpus",
        nargs="+",
        choices=[corpus.value for corpus in Corpus],
        default=[Corpus.GRID.value],
        help="kinds of sentences (default: grid)",
    )
    parser.add_argument(
        "--two-speakers", action="store_true", help="two speakers side by side take turns, 1280x720"
    )
    parser.add_argument(
        "--split",
        choices=[Split.VALIDATION.value, Split.TEST.value],
        default=Split.TEST.value,
        help="split of speakers and sentences: test, or validation for tuning (default: test)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="rendering processes")


def run(options: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Render clips, write their manifest and lexicon, and print the path of the manifest; existing clips are kept."""
    if options.sentences < 1:
        sys.exit(f"--sentences is {options.sentences}: expected a whole number of 1 or more")
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    corpora, speakers = [Corpus(name) for name in options.corpus], 2 if options.two_speakers else 1
    plans = plan_clips(corpora, options.sentences, speakers, Split(options.split))
    lines: list[str] = []
    with multiprocessing.get_context("spawn").Pool(options.workers, initializer=init_worker) as pool:
        for done, line in enumerate(pool.imap(functools.partial(_write_clip, folder), plans), start=1):
            lines.append(line)
            if done % 10 == 0 or done == len(plans):
                report(f"{folder}: {done} of {len(plans)} clips")
    sentences = (sentence for line in lines for sentence in json.loads(line)["sentences"])
    words = {word["text"] for sentence in sentences for word in sentence["words"]}
    write_lexicon(folder / "lexicon.tsv", words | set(VOCABULARY))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(f"{line}\n" for line in lines))
    print(manifest)


def _write_clip(folder: Path, plan: ClipPlan) -> str:
    """Render a clip unless it exists; return its manifest line."""
    clip, line = folder / f"{plan.name}.mp4", folder / f"{plan.name}.json"
    is_complete = clip.exists() and line.exists()
    if not is_complete or len(json.loads(line.read_text())["sentences"]) != plan.sentences:
        scene = build_scene(plan)
        partial = clip.with_name(f"{plan.name}.partial.mp4")
        write_clip(partial, scene.frames, scene.waveform)
        line.write_text(json.dumps(build_manifest_entry(plan, scene)))
        partial.rename(clip)
    return line.read_text()
