"""Makes an uploaded object a job, once however often its event comes, and starts it when there is room."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes import S3EventBridgeNotificationEvent
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from gorggle_lambdas.common import job_table, s3_objects
from gorggle_lambdas.common.job_options import JobOptions
from gorggle_lambdas.common.job_slots import JobSlots
from gorggle_lambdas.common.job_table import JobTable, VideoVersion
from gorggle_lambdas.common.observability import count, instrument, logger
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import UNVERSIONED


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    state_machine_arn: str
    max_concurrent_jobs: int
    max_upload_bytes: int
    job_retention_days: int
    lip_modality: str
    audio_engine: str
    face_engine: str
    language: str
    poll_interval_s: int


@instrument
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take events from the queue; those that fail come again, and in the end go to the dead letters."""
    # Every message failing is an answer like any other: the queue gives them again.
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    answer = process_partial_response(
        event=event, record_handler=process_record, processor=processor, context=context
    )
    return dict(answer)


def process_record(record: SQSRecord) -> None:
    """Make a job of one event and start it, if there is room."""
    version = parse_video_version(json.loads(record.body))
    chosen = load_settings(Settings)
    table = JobTable(chosen.jobs_table)
    job = find_or_create_job(version, table, chosen)
    if job is None:
        count("DuplicateEvents")
        return
    places = JobSlots(table, chosen.state_machine_arn, chosen.max_concurrent_jobs, chosen.poll_interval_s)
    places.start_waiting_jobs(new_job=job)


def parse_video_version(event: dict[str, Any]) -> VideoVersion:
    """What S3's event on EventBridge tells of."""
    detail = S3EventBridgeNotificationEvent(event).detail
    # EventBridge gives the key as it is; S3's own notifications would encode it.
    key = detail.object.key
    version_id = detail.raw_event["object"].get("version-id") or UNVERSIONED
    return VideoVersion(detail.bucket.name, key, version_id, int(detail.object.size or 0))


def find_or_create_job(version: VideoVersion, table: JobTable, chosen: Settings) -> dict[str, Any] | None:
    """The job for this version of the object, waiting to be run; None where it ran or runs already.

    An event that comes again finds the job of the first one. A second version under one key (a form that was sent
    twice) is another video, and another job.
    """
    job_id = _parse_job_id(version.key)
    if job_id is not None:
        arrived = {
            "state": job_table.WAITING,
            "stage": "waiting",
            "version_id": version.version_id,
            "size_bytes": version.size_bytes,
            "windows": {},
        }
        if table.update(
            job_id, arrived, allowed_states=(job_table.AWAITING_UPLOAD,), expected={"key": version.key}
        ):
            logger.info("a video arrived", job_id=job_id)
            return table.get(job_id)
        known = table.get(job_id)
        if known is not None and known.get("version_id") == version.version_id:
            return known if known["state"] == job_table.WAITING else None
        owner = known["owner"] if known is not None else job_table.DIRECT_OWNER
        options = known["options"] if known is not None else _get_default_options(chosen)
    else:
        owner, options = job_table.DIRECT_OWNER, _get_default_options(chosen)
    return _create_direct_job(version, owner, options, table, chosen)


def _create_direct_job(
    version: VideoVersion, owner: str, options: dict[str, str], table: JobTable, chosen: Settings
) -> dict[str, Any] | None:
    """A job of its own for an object that no upload was asked for."""
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
            "expires_at": job_table.compute_expiry(chosen.job_retention_days),
        }
    )
    job = table.get(job_id)
    return job if created or (job is not None and job["state"] == job_table.WAITING) else None


def _parse_job_id(key: str) -> str | None:
    """The job that an upload's key names: ``uploads/JOB/NAME``."""
    parts = key.removeprefix(s3_objects.UPLOADS_PREFIX).split("/")
    return parts[0] if key.startswith(s3_objects.UPLOADS_PREFIX) and len(parts) == 2 and parts[0] else None


def _get_default_options(chosen: Settings) -> dict[str, str]:
    options = JobOptions(chosen.lip_modality, chosen.audio_engine, chosen.face_engine, chosen.language)
    return options.to_document()
