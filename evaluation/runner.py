"""One run of the measuring tool: every clip under every condition, several at once, and what comes of it."""

from __future__ import annotations

import contextlib
import functools
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
    """Read all clips under all conditions; a list a condition, each in the order of the clips.

    A clip with noise is made once and read in every modality that hears.

    Args:
        transcriber: asks the service.
        entries: what to read.
        conditions: how.
        mixer: makes what is sent.
        jobs: clips read at once.
        on_result: told every reading as it comes, in the thread of the call. Where it raises, the client is closed.
    """
    found: dict[tuple[str, Condition], ClipResult] = {}
    pool = futures.ThreadPoolExecutor(jobs)
    try:
        tasks = [
            pool.submit(_transcribe_clip, transcriber, entry, alike, mixer)
            for entry in entries
            for alike in _group_by_noise(conditions)
        ]
        for task in futures.as_completed(tasks):
            for reading in task.result():
                found[reading.entry.id, reading.condition] = reading
                on_result(reading)
    except BaseException:
        transcriber.client.close()  # the clips being read would otherwise be waited for
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [[found[entry.id, condition] for entry in entries] for condition in conditions]


def _transcribe_clip(
    transcriber: Transcriber, entry: Entry, conditions: Sequence[Condition], mixer: NoiseMixer
) -> list[ClipResult]:
    """One clip in all modalities under the same circumstances."""
    clip = functools.cache(functools.partial(mixer.mix, entry, conditions[0].noise))
    return [transcriber.transcribe(entry, condition, clip) for condition in conditions]


def _group_by_noise(conditions: Sequence[Condition]) -> list[list[Condition]]:
    together: dict[object, list[Condition]] = {}
    for condition in conditions:
        together.setdefault(condition.noise, []).append(condition)
    return list(together.values())


@contextlib.contextmanager
def show_progress(total: int, stream: TextIO = sys.stderr) -> Iterator[Callable[[ClipResult], None]]:
    """A line that tells, where the stream is a terminal, how many of the readings are done."""
    line = ProgressLine(stream, "gorggle evaluate")
    begun = time.monotonic()
    done = failed = 0

    def tell(reading: ClipResult) -> None:
        nonlocal done, failed
        done += 1
        failed += reading.error is not None
        share = done / total
        left_s = (time.monotonic() - begun) * (1 / share - 1)
        note = f"[{'#' * int(share * BAR_CHARS):-<{BAR_CHARS}}] {done}/{total}  ETA {format_duration(left_s)}"
        line.set_message(note + (f"  {failed} failed" if failed else ""))

    try:
        yield tell
    finally:
        line.close()
