"""Fake Amazon Transcribe and Amazon Rekognition in moto, and faster retries. Each patch has a test that fails once moto has it.

The functions change moto globally: call them once, in a dedicated process.
"""

from __future__ import annotations

import json
import time
from typing import Any

from moto.rekognition.responses import RekognitionResponse
from moto.s3.models import s3_backends
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.transcribe.models import FakeTranscriptionJob

from gorggle_lambdas.common.job_table import VideoVersion
from tests.e2e.emulator import fake_services
from tests.e2e.emulator.fake_services import GroundTruth, NoTruthError


def patch_retry_delays(scale: float) -> None:
    """Scale the delays of retries, for tests; Wait states are not affected."""
    if scale == 1.0:
        return
    sleep = time.sleep

    class Clock:
        """Replaces the module ``time`` in the retrier."""

        @staticmethod
        def sleep(seconds: float) -> None:
            sleep(seconds * scale)

    # Only the retrier's reference to ``time``: other parts of moto must not change.
    vars(retrier_decl)["time"] = Clock


def patch_transcribe(ground_truth: GroundTruth) -> None:
    """Write transcripts, or fail with a reason; moto's transcription jobs complete without a transcript."""
    original = FakeTranscriptionJob.advance

    def advance(self: FakeTranscriptionJob) -> None:
        before = self.status
        original(self)
        if self.status == before or self.status != "COMPLETED":
            return
        s3 = s3_backends[self._account_id]["aws"]
        bucket, output_key = str(self._output_bucket_name), str(self.output_key)
        try:
            truth = ground_truth.load(_find_video_name(s3, output_key))
        except NoTruthError as error:
            self.status = "FAILED"
            self.failure_reason = str(error)  # type: ignore[assignment]
            return
        document = fake_services.build_transcription(truth, self.transcription_job_name)
        s3.put_object(bucket, output_key, json.dumps(document).encode())

    described = FakeTranscriptionJob.response_object

    def response_object(self: FakeTranscriptionJob, response_type: str) -> dict[str, Any]:
        answer = described(self, response_type)
        reason: Any = self.failure_reason
        if response_type == "GET" and reason:
            answer["TranscriptionJob"]["FailureReason"] = reason
        return answer

    FakeTranscriptionJob.advance = advance  # type: ignore[method-assign]
    FakeTranscriptionJob.response_object = response_object  # type: ignore[method-assign]


def _find_video_name(s3: Any, output_key: str) -> str:
    """Return the key of the video of a job, which contains the job id."""
    job_id = output_key.split("/")[1]
    for bucket in s3.buckets.values():
        for key, versions in bucket.keys.lists():
            digests = [VideoVersion(bucket.name, key, str(one.version_id)).digest for one in versions]
            if key.startswith(f"uploads/{job_id}/") or job_id in digests:
                return str(key)
    return output_key


def patch_rekognition(ground_truth: GroundTruth) -> None:
    """Add face detection in video, which moto lacks."""
    searches: dict[str, tuple[str, int]] = {}

    def start_face_detection(self: RekognitionResponse) -> str:
        request = json.loads(self.body)
        search_id = request.get("ClientRequestToken") or f"search-{len(searches)}"
        searches.setdefault(search_id, (request["Video"]["S3Object"]["Name"], 0))
        return json.dumps({"JobId": search_id})

    def get_face_detection(self: RekognitionResponse) -> str:
        request = json.loads(self.body)
        name, polls = searches[request["JobId"]]
        searches[request["JobId"]] = (name, polls + 1)
        # In progress at first, like on AWS.
        if polls == 0:
            return json.dumps({"JobStatus": "IN_PROGRESS"})
        try:
            truth = ground_truth.load(name)
        except NoTruthError as error:
            return json.dumps({"JobStatus": "FAILED", "StatusMessage": str(error)})
        page = int(request.get("NextToken") or 0)
        answer = fake_services.build_face_detection(
            truth, page=page, page_faces=request.get("MaxResults") or 1000
        )
        return json.dumps(answer)

    RekognitionResponse.start_face_detection = start_face_detection  # type: ignore[attr-defined]
    RekognitionResponse.get_face_detection = get_face_detection  # type: ignore[attr-defined]
