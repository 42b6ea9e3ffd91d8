"""A fake of the HTTP API whose jobs take a given time and return recorded results.

Corrections, captions, file names and progress use the pipeline's own code; only the inference is replaced. The results
are those of the clips in ``examples/``, transcribed with the built-in model (lips and audio separately) and fused.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from gorggle_lambdas.common.api_gateway import PRESIGNED_URL_TYPE
from gorggle_lambdas.common.corrections import CorrectionError, apply_corrections, parse_corrections
from gorggle_lambdas.common.progress import compute_progress
from gorggle_lambdas.common.result_publisher import RESULT_FORMATS, render_formats
from gorggle_lambdas.handlers.create_upload import MEDIA_TYPES, sanitize_name

WEB_TESTS = Path(__file__).resolve().parent
STAGES = ("waiting", "probing", "analyzing", "fusing")


@dataclass
class Job:
    name: str
    size_bytes: int
    owner: str = ""
    job_id: str = field(default_factory=lambda: secrets.token_hex(16))
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"))
    video: bytes = b""
    arrived_at: float | None = None
    failure: dict[str, str] | None = None
    results: list[dict[str, Any]] = field(default_factory=list)


class Pipeline:
    """The jobs and the API's routes; each job takes ``seconds``."""

    def __init__(self, seconds: float = 1.0, token: str = "") -> None:
        self.seconds, self.token = seconds, token
        self.jobs: dict[str, Job] = {}
        self.is_down = False
        # Origins of videos and results; empty: the API's origin.
        self.uploads_origin, self.results_origin = "", ""
        # For larger results, the API returns a presigned URL.
        self.response_limit_bytes = 5 * 2**20
        # The number of video URLs issued; the expired ones; those that expire during the first download.
        self.num_video_urls, self.expired_urls, self.expiring_urls = 0, set[int](), set[int]()
        self.requests: list[tuple[str, str]] = []

    # ------------------------------------------------------------------------------------------------------------ jobs

    def add(self, name: str, clip: Path, result: dict[str, Any], **changes: Any) -> Job:
        """Add a finished job."""
        job = Job(
            name, clip.stat().st_size, video=clip.read_bytes(), arrived_at=0.0, results=[result], **changes
        )
        self.jobs[job.job_id] = job
        return job

    def describe(self, job: Job) -> dict[str, Any]:
        document = self._describe_state(job)
        return document | compute_progress(document)

    def _describe_state(self, job: Job) -> dict[str, Any]:
        document: dict[str, Any] = {
            "job_id": job.job_id,
            "name": job.name,
            "created_at": job.created_at,
            "size_bytes": job.size_bytes,
        }
        if job.arrived_at is None:
            return {**document, "state": "awaiting_upload"}
        fraction = (time.monotonic() - job.arrived_at) / max(self.seconds, 1e-6)
        if job.failure and fraction >= 1:
            return {**document, "state": "failed", "stage": "analyzing", "failure": job.failure}
        if fraction >= 1:
            return self._describe_result(job, document)
        stage = STAGES[min(3, int(fraction * 5) if fraction < 0.4 else 2 if fraction < 0.9 else 3)]
        document |= {"state": "waiting" if stage == "waiting" else "running", "stage": stage}
        if stage == "analyzing":
            document["progress"] = {
                "windows": 1,
                "total_s": 20.0,
                "processed_s": round(20 * (fraction - 0.4) / 0.5, 1),
            }
        return document

    def _describe_result(self, job: Job, document: dict[str, Any]) -> dict[str, Any]:
        if not job.results:
            name = "two_speakers" if job.name.startswith("two") else "demo"
            job.results.append(json.loads((WEB_TESTS / "results" / f"{name}.json").read_text()))
        result = job.results[-1]
        return {
            **document,
            "state": "done",
            "stage": "done",
            "media": result["media"],
            "is_degraded": result["is_degraded"],
            "result_version": len(job.results),
            "cost": {"currency": "USD", "total": 0.0123},
        }

    # --------------------------------------------------------------------------------------------------------- routes

    def add_routes(self, app: web.Application) -> None:
        route = app.router.add_route
        route("POST", "/api/uploads", self._api(self.create_upload))
        route("GET", "/api/jobs", self._api(self.list_jobs))
        route("GET", "/api/jobs/{job_id}", self._api(self.get_job))
        route("DELETE", "/api/jobs/{job_id}", self._api(self.delete_job))
        route("POST", "/api/jobs/{job_id}/retry", self._api(self.retry_job))
        route("GET", "/api/jobs/{job_id}/result", self._api(self.get_result))
        route("PUT", "/api/jobs/{job_id}/result", self._api(self.save_corrections))
        route("GET", "/api/jobs/{job_id}/video", self._api(self.get_video_url))
        route("POST", "/store", self.receive_upload)
        route("GET", "/store/{job_id}", self.send_video)
        route("GET", "/results/{job_id}/{version}/{format}", self.send_result)

    def _api(self, respond: Any) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            self.requests.append((request.method, request.path))
            if self.is_down:
                return problem(503, "the service is unavailable")
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                return problem(401, "the token is missing or wrong")
            response: web.StreamResponse = await respond(request)
            return response

        return handler

    def _job(self, request: web.Request) -> Job:
        job = self.jobs.get(request.match_info["job_id"])
        if job is None:
            raise problem(404, "job not found", raised=True)
        return job

    async def create_upload(self, request: web.Request) -> web.StreamResponse:
        document = await request.json()
        if document["content_type"] not in MEDIA_TYPES:
            return problem(400, f"content_type is {document['content_type']!r}")
        job = Job(sanitize_name(document["name"]), document["size_bytes"])
        self.jobs[job.job_id] = job
        origin = self.uploads_origin or request.url.origin()
        upload = {"method": "POST", "url": f"{origin}/store", "fields": {"key": job.job_id}}
        return web.json_response({"job_id": job.job_id, "upload": upload}, status=201)

    async def receive_upload(self, request: web.Request) -> web.StreamResponse:
        fields: dict[str, Any] = {}
        async for part in await request.multipart():
            fields[part.name] = await part.read(decode=False)
        job = self.jobs[fields["key"].decode()]
        assert len(fields["file"]) == job.size_bytes
        job.video, job.arrived_at = bytes(fields["file"]), time.monotonic()
        return web.Response(status=204)

    async def list_jobs(self, _request: web.Request) -> web.StreamResponse:
        newest = sorted(self.jobs.values(), key=lambda job: job.created_at, reverse=True)
        return web.json_response({"jobs": [self.describe(job) for job in newest]})

    async def get_job(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.describe(self._job(request)))

    async def delete_job(self, request: web.Request) -> web.StreamResponse:
        del self.jobs[self._job(request).job_id]
        return web.Response(status=204)

    async def retry_job(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        job.failure, job.arrived_at = None, time.monotonic()
        return web.json_response(self.describe(job), status=202)

    async def get_result(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        version = int(request.query.get("version", len(job.results)))
        extension = request.query.get("format", "json")
        text = render_formats(job.results[version - 1])[extension]
        if len(text) > self.response_limit_bytes:
            origin = self.results_origin or request.url.origin()
            location = {
                "url": f"{origin}/results/{job.job_id}/{version}/{extension}",
                "expires_in_s": 900,
            }
            return web.json_response(location, content_type=PRESIGNED_URL_TYPE)
        return web.Response(text=text, content_type=RESULT_FORMATS[extension].split(";")[0])

    async def send_result(self, request: web.Request) -> web.StreamResponse:
        job, extension = self._job(request), request.match_info["format"]
        text = render_formats(job.results[int(request.match_info["version"]) - 1])[extension]
        return web.Response(text=text, content_type=RESULT_FORMATS[extension].split(";")[0])

    async def save_corrections(self, request: web.Request) -> web.StreamResponse:
        job, document = self._job(request), await request.json()
        if document["base_version"] != len(job.results):
            return problem(
                409, "another version was saved concurrently: reload the result and correct that version"
            )
        try:
            result = apply_corrections(job.results[-1], parse_corrections(document))
        except CorrectionError as error:
            return problem(400, str(error))
        job.results.append(result)
        response = {"version": len(job.results), "result": result}
        return web.json_response(
            response
            if len(json.dumps(result)) <= self.response_limit_bytes
            else {"version": response["version"]}
        )

    async def get_video_url(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        self.num_video_urls += 1
        url = f"{self.uploads_origin or request.url.origin()}/store/{job.job_id}?number={self.num_video_urls}"
        return web.json_response({"url": url, "expires_in_s": 900})

    async def send_video(self, request: web.Request) -> web.StreamResponse:
        number, body = int(request.query["number"]), self._job(request).video
        if number in self.expired_urls:
            return web.Response(status=403, text="Request has expired")
        if number in self.expiring_urls:
            self.expired_urls.add(number)
            return await send_half(request, body)
        byte_range = request.http_range
        start, stop = byte_range.start or 0, byte_range.stop or len(body)
        headers = {"accept-ranges": "bytes", "content-range": f"bytes {start}-{stop - 1}/{len(body)}"}
        is_partial = "range" in request.headers
        return web.Response(
            body=body[start:stop],
            status=206 if is_partial else 200,
            headers=headers if is_partial else {},
            content_type="video/mp4",
        )


async def send_half(request: web.Request, body: bytes) -> web.StreamResponse:
    """Send half of a video, then abort the connection."""
    response = web.StreamResponse(headers={"content-type": "video/mp4", "accept-ranges": "bytes"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


def problem(status: int, detail: str, *, raised: bool = False) -> Any:
    document = {"type": "about:blank", "title": "Problem", "status": status, "detail": detail}
    if raised:
        error: dict[int, type[web.HTTPException]] = {404: web.HTTPNotFound}
        return error[status](text=json.dumps(document), content_type="application/problem+json")
    return web.json_response(document, status=status, content_type="application/problem+json")
