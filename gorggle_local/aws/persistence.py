"""Keeps moto's objects and items in a folder while it runs, and gives them back to it at the next start.

moto has no way to give an object back under the version it had, nor to take a content from a file: both are done to
its objects themselves, here and nowhere else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import FakeKey, s3_backends

from gorggle_local.aws.job_recovery import plan_recovery
from gorggle_local.aws.state_store import Content, KeptObject, SavedState, StateFolder, pieces_of

SAVE_EVERY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PersistenceConfig:
    """What is kept, and how much.

    Attributes:
        videos: the bucket of the uploads; of these the oldest go when there is too much.
        results: the bucket of the results.
        jobs: the table of the jobs.
        limit_bytes: the most that videos and results may take.
    """

    videos: str
    results: str
    jobs: str
    limit_bytes: int


class StatePersister:
    """Restores, then saves every second what has changed.

    Args:
        folder: where.
        kept: what.
        account, region: of moto.
        dynamodb: a client of moto's.
    """

    def __init__(
        self, folder: Path, kept: PersistenceConfig, account: str, region: str, dynamodb: Any
    ) -> None:
        self._folder = StateFolder(folder)
        self._kept = kept
        self._s3 = s3_backends[account]["aws"]
        self._tables = dynamodb_backends[account][region]
        self._dynamodb = dynamodb
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> dict[str, list[str]]:
        """Restore, and begin to save; the names of the jobs that were cut off and go on, and that failed by it.

        Raises:
            KeptStateError: what was kept cannot be read; it is left as it is.
        """
        try:
            told = self._restore(self._folder.load())
        except BaseException:
            self._folder.close()
            raise
        self._thread.start()
        return told

    def stop(self) -> None:
        """Save what is left, and end."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._folder.close()

    def _run(self) -> None:
        saved: object = None
        while True:
            is_last = self._is_over.wait(SAVE_EVERY_S)
            try:
                stamp = self._stamp()
                if is_last or stamp != saved:
                    self._save()
                saved = stamp
            except Exception:
                # A full disk, most likely. What runs goes on; it is tried again in a second.
                _log.exception("the jobs could not be kept")
            if is_last:
                return

    # --------------------------------------------------------------------------------------------------------- restore

    def _restore(self, state: SavedState) -> dict[str, list[str]]:
        videos = {
            each.key: (each.version_id, each.size_bytes)
            for each in state.objects
            if each.bucket == self._kept.videos
        }
        jobs = plan_recovery(state.tables.get(self._kept.jobs, []), videos)
        gone = {f"{folder}/{job_id}/" for job_id in jobs.expired for folder in ("uploads", "jobs")}
        for each in state.objects:
            if each.bucket in (self._kept.videos, self._kept.results) and not each.key.startswith(
                tuple(gone)
            ):
                self._restore_object(each)
        for item in jobs.items:
            self._dynamodb.put_item(TableName=self._kept.jobs, Item=item)
        return {"resumed": jobs.resumed, "failed": jobs.failed}

    def _restore_object(self, given: KeptObject) -> None:
        # Nobody is told: its job knows of it already.
        key = self._s3.put_object(given.bucket, given.key, b"", etag=given.etag, disable_notification=True)
        key._version_id = given.version_id  # noqa: SLF001 - see the module
        key.last_modified = datetime.fromisoformat(given.modified_at)
        key.set_metadata(dict(given.metadata))
        _take(key, self._folder.content(given.file), given.size_bytes)

    # ------------------------------------------------------------------------------------------------------------ save

    def _stamp(self) -> object:
        """Another one whenever there is something to save; writing everything down takes a hundred times longer."""
        items: list[Any] = list(self._tables.tables[self._kept.jobs].items.values())
        changed = [item.attrs["updated_at"].value for item in items if "updated_at" in item.attrs]
        keys = self._keys((self._kept.videos, self._kept.results))
        return len(items), changed, [(key.name, id(key)) for key in keys]

    def _save(self) -> None:
        # Items first: whatever an item tells of was there before it was told.
        found: list[Any] = list(self._tables.tables[self._kept.jobs].items.values())
        items = [item.to_json()["Attributes"] for item in found]
        self._shrink(items)
        objects = [self._keep(key) for key in self._keys((self._kept.videos, self._kept.results))]
        if self._folder.save(SavedState(objects, {self._kept.jobs: items})):
            self._folder.tidy(each.file for each in objects)

    def _keys(self, buckets: Sequence[str]) -> Iterator[FakeKey]:
        for name in buckets:
            for _, versions in list(self._s3.buckets[name].keys.lists()):
                # The others are marks of deletion.
                yield from (each for each in list(versions) if isinstance(each, FakeKey))

    def _keep(self, key: FakeKey) -> KeptObject:
        buffer: Any = key._value_buffer  # noqa: SLF001 - see the module
        if not isinstance(buffer, Content):
            with key.lock:
                file = self._folder.add(pieces_of(buffer))
                _take(key, self._folder.content(file), key.contentsize)
                # moto's copy, in memory or on the disk, is not needed any more.
                buffer.close()
            buffer = key._value_buffer  # noqa: SLF001 - see the module
        return KeptObject(
            bucket=str(key.bucket_name),
            key=key.name,
            version_id=key.version_id,
            file=buffer.path.name,
            size_bytes=key.contentsize,
            etag=key.etag.strip('"'),
            modified_at=key.last_modified.isoformat(),
            metadata={str(name): str(value) for name, value in key.metadata.items()},
        )

    def _shrink(self, items: Sequence[dict[str, Any]]) -> None:
        """Delete the oldest videos of jobs that have ended, where there is too much; their transcripts stay."""
        size_bytes = sum(key.contentsize for key in self._keys((self._kept.videos, self._kept.results)))
        if size_bytes <= self._kept.limit_bytes:
            return
        ended = {item["key"]["S"] for item in items if "ended_at" in item and "key" in item}
        for key in sorted(self._keys((self._kept.videos,)), key=lambda one: one.last_modified):
            if size_bytes > self._kept.limit_bytes and key.name in ended:
                size_bytes -= key.contentsize
                self._s3.delete_object(str(key.bucket_name), key.name, version_id=key.version_id)
                _log.warning("%s was deleted: there is more than %d bytes", key.name, self._kept.limit_bytes)


def _take(key: FakeKey, content: Content, size_bytes: int) -> None:
    """Let an object have its content from a file."""
    key._value_buffer = content  # type: ignore[assignment]  # noqa: SLF001 - see the module
    key.contentsize = size_bytes
