"""Fuses the results of all sources and publishes the result with captions."""

from __future__ import annotations

from typing import Any

from gorggle_fusion import FusionInputError, Result, fuse
from gorggle_lambdas.common import job_table
from gorggle_lambdas.common.analysis_results import AnalysisResults, compute_usage, load_analysis_results
from gorggle_lambdas.common.errors import (
    AwsUnavailableError,
    JobNotFoundError,
    NoTranscriptError,
    WindowMissingError,
)
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.result_publisher import publish
from gorggle_lambdas.common.settings import JobResultsSettings as Settings
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent

RAISES = (NoTranscriptError, WindowMissingError, JobNotFoundError, FusionInputError, AwsUnavailableError)


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Fuse and publish version 1; return the job's new attributes."""
    job, settings = JobEvent.parse(event), load_settings(Settings)
    JobTable(settings.jobs_table).advance(job.job_id, job.attempt, {"stage": "fusing"})
    results = load_analysis_results(settings.results_bucket, job)
    result = fuse_job(results)
    folder = f"1-{job.attempt}"
    publish(settings.results_bucket, job.job_id, folder, result.to_document())
    count("Words", sum(len(segment.words) for segment in result.segments))
    if result.is_degraded:
        count("DegradedResults")
    version = {"version": 1, "folder": folder, "base": 0, "created_at": job_table.now(), "by": "pipeline"}
    return {
        "versions": [version],
        "sources": {report.name: report.status for report in result.sources},
        "is_degraded": result.is_degraded,
        "usage": compute_usage(results),
    }


def fuse_job(results: AnalysisResults) -> Result:
    """Fuse the results of all sources.

    Raises:
        NoTranscriptError: neither lips nor audio were transcribed; the message has the reasons.
        FusionInputError: a document is invalid.
    """
    inputs = results.inputs
    if inputs.lips is None and inputs.audio is None:
        reasons = "; ".join(
            dict.fromkeys(f"{failure.source}: {failure.reason}" for failure in inputs.failures)
        )
        raise NoTranscriptError(f"no source could be transcribed ({reasons or 'none was requested'})")
    return fuse(inputs)
