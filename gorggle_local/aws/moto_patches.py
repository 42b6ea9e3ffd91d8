"""Patches for missing or wrong behaviour of moto 5.2.5. Each has a test that fails once moto has fixed it.

``apply_patches`` changes moto globally: call it once, in a dedicated process.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.events.models import Rule, events_backends
from moto.rekognition.responses import RekognitionResponse
from moto.s3.models import s3_backends
from moto.sqs.models import Queue
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.transcribe.models import FakeTranscriptionJob
from moto.utilities.arns import parse_arn

from gorggle_lambdas.common.job_table import VideoVersion
from gorggle_local.aws import fake_services
from gorggle_local.aws.fake_services import GroundTruth, NoTruthError

InvokeFunction = Callable[[LambdaFunction, str, Any, Any], str]


@dataclass(frozen=True)
class PatchConfig:
    """Configuration of the patches.

    Attributes:
        invoke: runs a function: (function, payload, request headers, response headers) → payload.
        ground_truth: reference transcripts for the fake Transcribe and Rekognition.
        time_scale: factor for the delays of the state machine's retries.
    """

    invoke: InvokeFunction
    ground_truth: GroundTruth
    time_scale: float = 1.0


def apply_patches(config: PatchConfig) -> None:
    """Apply all patches."""
    patch_lambda(config.invoke)
    patch_event_rules()
    patch_execution_events()
    patch_queues()
    patch_retry_delays(config.time_scale)
    patch_transcribe(config.ground_truth)
    patch_rekognition(config.ground_truth)


def patch_lambda(invoke: InvokeFunction) -> None:
    """Run functions: without Docker, moto returns a fixed text."""

    def run(self: LambdaFunction, body: Any, request_headers: Any, response_headers: Any) -> str:
        payload = body.decode() if isinstance(body, bytes) else body or "{}"
        if (
            request_headers.get("X-Amz-Invocation-Type", request_headers.get("x-amz-invocation-type"))
            == "Event"
        ):
            _run_in_background(lambda: invoke(self, payload, {}, {}))
            return ""
        return invoke(self, payload, request_headers, response_headers)

    LambdaFunction.invoke = run  # type: ignore[method-assign]


def patch_event_rules() -> None:
    """Invoke functions that are targets of rules: moto raises NotImplementedError."""
    original = Rule.send_to_targets

    def send(self: Rule, original_event: Any, transform_input: bool = True) -> None:
        # moto would raise at these targets and skip the following ones.
        functions = [target for target in self.targets if ":lambda:" in target["Arn"]]
        others = [target for target in self.targets if target not in functions]
        if functions and self.event_pattern.matches_event(original_event):
            for target in functions:
                _invoke_target(target, original_event)
        whole, self.targets = self.targets, others
        try:
            original(self, original_event, transform_input)
        finally:
            self.targets = whole

    Rule.send_to_targets = send  # type: ignore[method-assign]


def _invoke_target(target: dict[str, Any], event: Any) -> None:
    from moto.awslambda.utils import get_backend

    arn = parse_arn(target["Arn"])
    payload = target.get("Input") or json.dumps(event, default=str)
    _run_in_background(
        lambda: get_backend(arn.account, arn.region).invoke(target["Arn"], None, payload, {}, {})
    )


def patch_execution_events() -> None:
    """Send an event at the end of an execution, like AWS; moto sends none."""
    original = BaseExecutionWorkerCommunication.terminated

    def terminated(self: BaseExecutionWorkerCommunication) -> None:
        original(self)
        execution = self.execution
        if execution.exec_status is None:
            return
        detail = {
            "executionArn": execution.exec_arn,
            "stateMachineArn": execution.state_machine.arn,
            "name": execution.name,
            "status": execution.exec_status.value,
            "input": json.dumps(execution.input_data),
            "error": execution.error,
            "cause": execution.cause,
        }
        event: Any = {
            "version": "0",
            "id": execution.name,
            "source": "aws.states",
            "detail-type": "Step Functions Execution Status Change",
            "account": execution.account_id,
            "region": execution.region_name,
            "time": time.time(),
            "resources": [execution.exec_arn],
            "detail": detail,
        }
        for bus in events_backends[execution.account_id][execution.region_name].event_buses.values():
            for rule in bus.rules.values():
                rule.send_to_targets(event, transform_input=False)

    BaseExecutionWorkerCommunication.terminated = terminated  # type: ignore[method-assign]


def patch_queues() -> None:
    """Leave messages in queues with an event source mapping; ``sqs_poller`` receives them, as on AWS.

    moto invokes the function while the message is being sent, without retries and without partial batch failures.
    """
    original = Queue.add_message

    def add_message(self: Queue, message: Any) -> None:
        mappings, self.lambda_event_source_mappings = self.lambda_event_source_mappings, {}
        try:
            original(self, message)
        finally:
            self.lambda_event_source_mappings = mappings

    Queue.add_message = add_message  # type: ignore[method-assign]


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


def _run_in_background(task: Callable[[], object]) -> None:
    threading.Thread(target=task, daemon=True).start()
