"""Saves moto's S3 objects and DynamoDB items to a folder, and restores them at the next start.

Restoring version ids and reading contents from files needs access to private attributes of moto's objects.
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
from gorggle_local.aws.state_store import Content, SavedState, StateFolder, StoredObject, read_chunks

SAVE_INTERVAL_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PersistenceConfig:
    """What is saved.

    Attributes:
        uploads_bucket: its oldest videos are deleted above the size limit.
        max_bytes: size limit of videos and results.
    """

    uploads_bucket: str
    results_bucket: str
    jobs_table: str
    max_bytes: int


class StatePersister:
    """Restores the state, then saves changes every second.

    Args:
        folder: of the saved state.
        config: what is saved.
        account, region: of moto.
        dynamodb: client for moto.
    """

    def __init__(
        self, folder: Path, config: PersistenceConfig, account: str, region: str, dynamodb: Any
    ) -> None:
        self._folder = StateFolder(folder)
        self._config = config
        self._buckets = (config.uploads_bucket, config.results_bucket)
        self._s3 = s3_backends[account]["aws"]
        self._tables = dynamodb_backends[account][region]
        self._dynamodb = dynamodb
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> dict[str, list[str]]:
        """Restore the state and start saving; return the ids of interrupted jobs that are resumed and that failed.

        Raises:
            StateStoreError: the saved state cannot be read; it is not changed.
        """
        try:
            result = self._restore(self._folder.load())
        except BaseException:
            self._folder.close()
            raise
        self._thread.start()
        return result

    def stop(self) -> None:
        """Save the last changes and stop."""
        self._stop_event.set()
        if self._thread.is_alive():
            self._thread.join()
        self._folder.close()

    def _run(self) -> None:
        saved: object = None
        while True:
            is_last = self._stop_event.wait(SAVE_INTERVAL_S)
            try:
                fingerprint = self._fingerprint()
                if is_last or fingerprint != saved:
                    self._save()
                saved = fingerprint
            except Exception:
                # For example a full disk. Retried in a second.
                _log.exception("the state could not be saved")
            if is_last:
                return

    def _restore(self, state: SavedState) -> dict[str, list[str]]:
        videos = {
            each.key: (each.version_id, each.size_bytes)
            for each in state.objects
            if each.bucket == self._config.uploads_bucket
        }
        jobs = plan_recovery(state.tables.get(self._config.jobs_table, []), videos)
        expired = {f"{folder}/{job_id}/" for job_id in jobs.expired for folder in ("uploads", "jobs")}
        for each in state.objects:
            if each.bucket in self._buckets and not each.key.startswith(tuple(expired)):
                self._restore_object(each)
        for item in jobs.items:
            self._dynamodb.put_item(TableName=self._config.jobs_table, Item=item)
        return {"resumed": jobs.resumed, "failed": jobs.failed}

    def _restore_object(self, stored: StoredObject) -> None:
        # Without an event: its job exists already.
        key = self._s3.put_object(stored.bucket, stored.key, b"", etag=stored.etag, disable_notification=True)
        key._version_id = stored.version_id  # noqa: SLF001 - see the module docstring
        key.last_modified = datetime.fromisoformat(stored.modified_at)
        key.set_metadata(dict(stored.metadata))
        _set_content(key, self._folder.get_content(stored.file), stored.size_bytes)

    def _fingerprint(self) -> object:
        """Return a value that differs if anything has changed; much faster than serializing the state."""
        items: list[Any] = list(self._tables.tables[self._config.jobs_table].items.values())
        changed = [item.attrs["updated_at"].value for item in items if "updated_at" in item.attrs]
        keys = self._list_keys(self._buckets)
        return len(items), changed, [(key.name, id(key)) for key in keys]

    def _save(self) -> None:
        # Items first: objects exist before items refer to them.
        current: list[Any] = list(self._tables.tables[self._config.jobs_table].items.values())
        items = [item.to_json()["Attributes"] for item in current]
        self._enforce_disk_limit(items)
        objects = [self._store_object(key) for key in self._list_keys(self._buckets)]
        if self._folder.save(SavedState(objects, {self._config.jobs_table: items})):
            self._folder.remove_unused(each.file for each in objects)

    def _list_keys(self, buckets: Sequence[str]) -> Iterator[FakeKey]:
        for name in buckets:
            for _, versions in list(self._s3.buckets[name].keys.lists()):
                # The others are delete markers.
                yield from (each for each in list(versions) if isinstance(each, FakeKey))

    def _store_object(self, key: FakeKey) -> StoredObject:
        buffer: Any = key._value_buffer  # noqa: SLF001 - see the module docstring
        if not isinstance(buffer, Content):
            with key.lock:
                file = self._folder.add_content(read_chunks(buffer))
                _set_content(key, self._folder.get_content(file), key.contentsize)
                # Free moto's copy, in memory or on disk.
                buffer.close()
            buffer = key._value_buffer  # noqa: SLF001 - see the module docstring
        return StoredObject(
            bucket=str(key.bucket_name),
            key=key.name,
            version_id=key.version_id,
            file=buffer.path.name,
            size_bytes=key.contentsize,
            etag=key.etag.strip('"'),
            modified_at=key.last_modified.isoformat(),
            metadata={str(name): str(value) for name, value in key.metadata.items()},
        )

    def _enforce_disk_limit(self, items: Sequence[dict[str, Any]]) -> None:
        """Delete the oldest videos of finished jobs above the size limit; transcripts are kept."""
        size_bytes = sum(key.contentsize for key in self._list_keys(self._buckets))
        if size_bytes <= self._config.max_bytes:
            return
        ended = {item["key"]["S"] for item in items if "ended_at" in item and "key" in item}
        for key in sorted(self._list_keys((self._config.uploads_bucket,)), key=lambda one: one.last_modified):
            if size_bytes > self._config.max_bytes and key.name in ended:
                size_bytes -= key.contentsize
                self._s3.delete_object(str(key.bucket_name), key.name, version_id=key.version_id)
                _log.warning(
                    "deleted %s: the size limit of %d bytes is exceeded", key.name, self._config.max_bytes
                )


def _set_content(key: FakeKey, content: Content, size_bytes: int) -> None:
    """Set an object's content to a file."""
    key._value_buffer = content  # type: ignore[assignment]  # noqa: SLF001 - see the module docstring
    key.contentsize = size_bytes
