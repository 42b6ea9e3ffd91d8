"""Runs a measurement: transcribes every clip under every condition, several in parallel."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TextIO

from gorggle.cli.progress import ProgressLine, format_duration
from gorggle_evaluation.conditions import Condition, NoiseMixer
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.transcriber import ClipResult, Transcriber

BAR_CHARS = 20


def transcribe_clips(
    transcriber: Transcriber,
    entries: Sequence[Entry],
    conditions: Sequence[Condition],
    mixer: NoiseMixer,
    jobs: int,
    on_result: Callable[[ClipResult], None],
) -> list[list[ClipResult]]:
    """Transcribe all clips under all conditions; return a list per condition, in the order of the clips.

    A noisy clip is generated once for all modalities with audio.

    Args:
        transcriber: client of the service.
        entries: clips.
        conditions: modalities and noise.
        mixer: mixes noise into clips.
        jobs: clips in parallel.
        on_result: called with each result in the calling thread. If it raises, the client is closed.
    """
    results: dict[tuple[str, Condition], ClipResult] = {}
    pool = futures.ThreadPoolExecutor(jobs)
    try:
        # `build_conditions` returns the modalities of one noise condition in a row.
        groups = [list(group) for _, group in itertools.groupby(conditions, lambda one: one.noise)]
        tasks = [
            pool.submit(_transcribe_clip, transcriber, entry, group, mixer)
            for entry in entries
            for group in groups
        ]
        for task in futures.as_completed(tasks):
            for result in task.result():
                results[result.entry.id, result.condition] = result
                on_result(result)
    except BaseException:
        transcriber.client.close()  # aborts the running transcriptions
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [[results[entry.id, condition] for entry in entries] for condition in conditions]


def _transcribe_clip(
    transcriber: Transcriber, entry: Entry, conditions: Sequence[Condition], mixer: NoiseMixer
) -> list[ClipResult]:
    """Transcribe one clip in all modalities of one noise condition."""
    clip = functools.cache(functools.partial(mixer.mix, entry, conditions[0].noise))
    return [transcriber.transcribe(entry, condition, clip) for condition in conditions]


@contextlib.contextmanager
def show_progress(total: int, stream: TextIO = sys.stderr) -> Iterator[Callable[[ClipResult], None]]:
    """Show a progress line if the stream is a terminal; yields the callback that advances it."""
    line = ProgressLine(stream, "gorggle evaluate")
    start = time.monotonic()
    done = failed = 0

    def report(result: ClipResult) -> None:
        nonlocal done, failed
        done += 1
        failed += result.error is not None
        share = done / total
        left_s = (time.monotonic() - start) * (1 / share - 1)
        note = f"[{'#' * int(share * BAR_CHARS):-<{BAR_CHARS}}] {done}/{total}  ETA {format_duration(left_s)}"
        line.set_message(note + (f"  {failed} failed" if failed else ""))

    try:
        yield report
    finally:
        line.close()
