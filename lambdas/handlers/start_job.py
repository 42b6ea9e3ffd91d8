"""Creates a job for an uploaded object, exactly once per version, and starts it when a slot is free."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes import S3EventBridgeNotificationEvent
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from gorggle_lambdas.common import job_table, s3_objects
from gorggle_lambdas.common.job_options import OptionSettings
from gorggle_lambdas.common.job_slots import JobSlots, SlotSettings
from gorggle_lambdas.common.job_table import JobTable, VideoVersion
from gorggle_lambdas.common.observability import count, instrument, logger
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import UNVERSIONED


@dataclass(frozen=True)
class Settings(SlotSettings, OptionSettings):
    """See ``functions.toml``."""

    job_retention_days: int


@instrument
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Process events from the queue; failed ones are redelivered and finally moved to the dead-letter queue."""
    # A batch with only failures is a normal response: the queue redelivers them.
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    response = process_partial_response(
        event=event, record_handler=process_record, processor=processor, context=context
    )
    return dict(response)


def process_record(record: SQSRecord) -> None:
    """Create the job of one event, and start it if a slot is free."""
    version = parse_video_version(json.loads(record.body))
    settings = load_settings(Settings)
    slots = JobSlots(settings)
    job = find_or_create_job(version, slots.table, settings)
    if job is None:
        count("DuplicateEvents")
        return
    slots.start_waiting_jobs(new_job=job)


def parse_video_version(event: dict[str, Any]) -> VideoVersion:
    """Parse S3's "Object Created" event from EventBridge."""
    detail = S3EventBridgeNotificationEvent(event).detail
    # EventBridge does not URL-encode the key, unlike S3's own notifications.
    key = detail.object.key
    version_id = detail.raw_event["object"].get("version-id") or UNVERSIONED
    return VideoVersion(detail.bucket.name, key, version_id, int(detail.object.size or 0))


def find_or_create_job(version: VideoVersion, table: JobTable, settings: Settings) -> dict[str, Any] | None:
    """Return the waiting job of this version of the object; None if it has started before.

    A repeated event finds the job of the first one. A second version under one key (a form submitted twice) is another
    video, and another job.
    """
    job_id = _parse_job_id(version.key)
    if job_id is not None:
        attributes = {
            "state": job_table.WAITING,
            "stage": "waiting",
            "version_id": version.version_id,
            "size_bytes": version.size_bytes,
            "windows": {},
        }
        if table.update(
            job_id, attributes, allowed_states=(job_table.AWAITING_UPLOAD,), expected={"key": version.key}
        ):
            logger.info("video uploaded", job_id=job_id)
            return table.get(job_id)
        existing = table.get(job_id)
        if existing is not None and existing.get("version_id") == version.version_id:
            return existing if existing["state"] == job_table.WAITING else None
        owner = existing["owner"] if existing is not None else job_table.DIRECT_OWNER
        options = existing["options"] if existing is not None else settings.default_options.to_document()
    else:
        owner, options = job_table.DIRECT_OWNER, settings.default_options.to_document()
    return _create_direct_job(version, owner, options, table, settings)


def _create_direct_job(
    version: VideoVersion, owner: str, options: dict[str, str], table: JobTable, settings: Settings
) -> dict[str, Any] | None:
    """Create a job for an object without an upload request."""
    job_id = version.digest
    created = table.create(
        {
            "job_id": job_id,
            "owner": owner,
            "state": job_table.WAITING,
            "stage": "waiting",
            "name": unquote(version.key).rpartition("/")[2] or "video",
            "bucket": version.bucket,
            "key": version.key,
            "version_id": version.version_id,
            "size_bytes": version.size_bytes,
            "options": options,
            "windows": {},
            "expires_at": job_table.compute_expiry(settings.job_retention_days),
        }
    )
    job = table.get(job_id)
    return job if created or (job is not None and job["state"] == job_table.WAITING) else None


def _parse_job_id(key: str) -> str | None:
    """Return the job ID in an upload's key: ``uploads/JOB/NAME``."""
    parts = key.removeprefix(s3_objects.UPLOADS_PREFIX).split("/")
    return parts[0] if key.startswith(s3_objects.UPLOADS_PREFIX) and len(parts) == 2 and parts[0] else None
