"""One run of the measuring tool: every clip under every condition, several at once, and what comes of it."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TextIO

from gorggle.cli.progress import ProgressLine, minutes
from gorggle_evaluation.conditions import Condition, NoisyClips
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.transcriber import ClipResult, Transcriber

BAR_CHARS = 20


def readings(
    reader: Transcriber,
    entries: Sequence[Entry],
    conditions: Sequence[Condition],
    clips: NoisyClips,
    jobs: int,
    tell: Callable[[ClipResult], None],
) -> list[list[ClipResult]]:
    """Read all clips under all conditions; a list a condition, each in the order of the clips.

    A clip with noise is made once and read in every modality that hears.

    Args:
        reader: asks the service.
        entries: what to read.
        conditions: how.
        clips: makes what is sent.
        jobs: clips read at once.
        tell: told every reading as it comes, in the thread of the call. Where it raises, the client is closed.
    """
    found: dict[tuple[str, Condition], ClipResult] = {}
    pool = futures.ThreadPoolExecutor(jobs)
    try:
        tasks = [
            pool.submit(_read, reader, entry, alike, clips)
            for entry in entries
            for alike in _by_circumstances(conditions)
        ]
        for task in futures.as_completed(tasks):
            for reading in task.result():
                found[reading.entry.id, reading.condition] = reading
                tell(reading)
    except BaseException:
        reader.client.close()  # the clips being read would otherwise be waited for
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [[found[entry.id, condition] for entry in entries] for condition in conditions]


def _read(
    reader: Transcriber, entry: Entry, conditions: Sequence[Condition], clips: NoisyClips
) -> list[ClipResult]:
    """One clip in all modalities under the same circumstances."""
    clip = functools.cache(functools.partial(clips.clip, entry, conditions[0].circumstances))
    return [reader.read(entry, condition, clip) for condition in conditions]


def _by_circumstances(conditions: Sequence[Condition]) -> list[list[Condition]]:
    together: dict[object, list[Condition]] = {}
    for condition in conditions:
        together.setdefault(condition.circumstances, []).append(condition)
    return list(together.values())


@contextlib.contextmanager
def progress(total: int, stream: TextIO = sys.stderr) -> Iterator[Callable[[ClipResult], None]]:
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
        note = f"[{'#' * int(share * BAR_CHARS):-<{BAR_CHARS}}] {done}/{total}  ETA {minutes(left_s)}"
        line.note(note + (f"  {failed} failed" if failed else ""))

    try:
        yield tell
    finally:
        line.close()
