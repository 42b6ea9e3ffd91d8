"""Utterances on disk: shards written by several processes, read through memory maps."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_training.sentences import Corpus, Split
from gorggle_training.speech_synthesis import TimedWord
from gorggle_training.utterances import SAMPLES_PER_FRAME, Utterance, render_utterance

UTTERANCES_PER_SHARD = 50


@dataclass(frozen=True)
class _Shard:
    """One open shard: utterance ``i`` has the frames ``ends[i - 1]`` to ``ends[i]``."""

    crops: NDArray[np.uint8]
    waveform: NDArray[np.int16]
    motion: NDArray[np.float16]
    ends: list[int]
    words: list[tuple[TimedWord, ...]]

    def utterance(self, index: int) -> Utterance:
        begin, end = ([0, *self.ends])[index : index + 2]
        return Utterance(
            np.asarray(self.crops[begin:end]),
            np.asarray(self.waveform[begin * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]),
            self.motion[begin:end].astype(np.float32),
            self.words[index],
        )


class ShardFolder:
    """The utterances of all complete shards in a folder; writers may add more concurrently."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: set[str] = set()
        self._shards: list[_Shard] = []
        self._first_indices: list[int] = []  # index of each shard's first utterance
        self.frames: list[int] = []  # T of every utterance
        self.refresh()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Utterance:
        shard = bisect_right(self._first_indices, index) - 1
        return self._shards[shard].utterance(index - self._first_indices[shard])

    def read_all(self) -> list[Utterance]:
        """Return all utterances."""
        return [self[index] for index in range(len(self))]

    def draw_epoch(self, rng: np.random.Generator) -> list[int]:
        """Return the indices of one epoch, in random order."""
        order: list[int] = rng.permutation(len(self)).tolist()
        return order

    def refresh(self) -> None:
        """Load shards that were finished since the last call."""
        for path in sorted(self._folder.glob("[0-9]*")):
            if path.name.isdigit() and path.name not in self._loaded:  # others are incomplete
                self._loaded.add(path.name)
                self._append(_open_shard(path))

    def _append(self, shard: _Shard) -> None:
        self._first_indices.append(len(self.frames))
        self._shards.append(shard)
        self.frames += np.diff([0, *shard.ends]).tolist()


class UtteranceStore(ShardFolder):
    """The rendered utterances of one split and corpus."""

    def __init__(self, folder: Path, split: Split, corpus: Corpus = Corpus.GRID) -> None:
        super().__init__(folder / _folder_name(split, corpus))


class MixedStore:
    """Recorded and rendered utterances; an epoch has all recorded ones once and rendered ones in the given ratio.

    Args:
        recorded: at least one utterance.
        rendered: at least one utterance; may grow.
        recorded_share: of the utterances of an epoch, above 0.
    """

    def __init__(self, recorded: ShardFolder, rendered: ShardFolder, recorded_share: float) -> None:
        self._recorded, self._rendered = recorded, rendered
        self._recorded_share = recorded_share

    def __len__(self) -> int:
        return len(self._recorded) + len(self._rendered)

    def __getitem__(self, index: int) -> Utterance:
        recorded = len(self._recorded)
        return self._recorded[index] if index < recorded else self._rendered[index - recorded]

    @property
    def frames(self) -> list[int]:
        """Return T of every utterance."""
        return self._recorded.frames + self._rendered.frames

    def draw_epoch(self, rng: np.random.Generator) -> list[int]:
        """Return the indices of one epoch, in random order."""
        recorded, rendered = len(self._recorded), len(self._rendered)
        wanted = round(recorded * (1 / self._recorded_share - 1))
        chosen = rng.choice(rendered, wanted, replace=wanted > rendered)
        order: list[int] = rng.permutation([*range(recorded), *(recorded + chosen)]).tolist()
        return order

    def refresh(self) -> None:
        """Load rendered shards that were finished since the last call."""
        self._rendered.refresh()


Store = ShardFolder | MixedStore


def write_shard(
    folder: Path, split: Split, number: int, count: int = UTTERANCES_PER_SHARD, corpus: Corpus = Corpus.GRID
) -> Path:
    """Render the utterances of one shard unless it exists. It appears atomically when complete."""
    path = folder / _folder_name(split, corpus) / f"{number:05d}"
    if path.exists():
        return path
    first = number * UTTERANCES_PER_SHARD
    save_shard(path, [render_utterance(split, first + index, corpus) for index in range(count)])
    return path


def save_shard(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write at least one utterance as a shard, atomically."""
    partial = path.with_suffix(f".partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.save(partial / "crops.npy", np.concatenate([utterance.crops for utterance in utterances]))
    np.save(partial / "waveform.npy", np.concatenate([utterance.waveform for utterance in utterances]))
    motion = np.concatenate([utterance.motion for utterance in utterances]).astype(np.float16)
    np.save(partial / "motion.npy", motion)
    ends = np.cumsum([utterance.frames for utterance in utterances]).tolist()
    words = [[asdict(word) for word in utterance.words] for utterance in utterances]
    (partial / "words.json").write_text(json.dumps({"ends": ends, "words": words}))
    partial.rename(path)


def render_split(
    folder: Path,
    split: Split,
    utterances: int,
    workers: int,
    report: Callable[[str], None],
    corpus: Corpus = Corpus.GRID,
) -> None:
    """Render at least the given number of utterances, in whole shards, with worker processes."""
    shards = -(-utterances // UTTERANCES_PER_SHARD)
    write = functools.partial(write_shard, folder, split, corpus=corpus)
    with multiprocessing.get_context("spawn").Pool(workers, initializer=init_worker) as pool:
        for done, _ in enumerate(pool.imap_unordered(write, range(shards)), start=1):
            report(
                f"{_folder_name(split, corpus)}: {done} of {shards} shards, {UTTERANCES_PER_SHARD} utterances each"
            )


def init_worker() -> None:
    """Lower the priority of a rendering worker and limit OpenCV to one thread."""
    os.nice(5)
    cv2.setNumThreads(1)  # one worker per core


def _folder_name(split: Split, corpus: Corpus) -> str:
    """Return the folder name of a split; the training split mixes the corpora."""
    return f"{split.value}-{corpus.value}" if corpus is Corpus.PHRASES else split.value


def _open_shard(path: Path) -> _Shard:
    metadata = json.loads((path / "words.json").read_text())
    return _Shard(
        np.load(path / "crops.npy", mmap_mode="r"),
        np.load(path / "waveform.npy", mmap_mode="r"),
        np.load(path / "motion.npy"),
        metadata["ends"],
        [tuple(TimedWord(**word) for word in words) for words in metadata["words"]],
    )
