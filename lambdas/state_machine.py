"""Definition of the Step Functions state machine that runs a job, in Amazon States Language (JSONPath).

States pass small values only; results are stored in S3. Another analyser is another branch of ``AnalyzeMedia``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

State = dict[str, Any]

_SERVER_ERRORS = (
    *("NoFaceError", "PreconditionError", "InvalidRequestError", "NotFoundError", "AuthenticationError"),
    *("ConfigurationError", "ServerError"),
)


def build_definition(values: Mapping[str, Any]) -> State:
    """Return the definition.

    Args:
        values: the ARN of each function by its name in ``functions.toml``, ``results_bucket`` (a bucket's name), and
            ``max_concurrent_windows``.
    """
    return {
        "Comment": "Transcribes one video from lip reading, audio and face tracks. Results are stored in S3.",
        "StartAt": "ProbeMedia",
        "TimeoutSeconds": 12 * 3600,
        "States": {
            "ProbeMedia": _task(
                values["probe_media"],
                930,
                "AnalyzeMedia",
                outputs=(
                    *("duration_s", "audio", "faces", "lips", "has_inline_windows"),
                    *("windows", "window_count", "windows_key"),
                ),
                result="media",
                catch=_catch("FailJob", "InvalidMediaError", "ObjectNotFoundError", "JobNotFoundError"),
            ),
            "AnalyzeMedia": {
                "Type": "Parallel",
                "Comment": "The failure of one source is recorded; the others continue.",
                "Branches": [_audio_branch(values), _face_branch(values), _lip_branch(values)],
                "ResultPath": None,
                "Catch": _catch("FailJob"),
                "Next": "FuseResults",
            },
            "FuseResults": _task(
                values["fuse_results"],
                630,
                "CompleteJob",
                outputs=("versions", "sources", "is_degraded", "usage"),
                result="result",
                catch=_catch(
                    "FailJob",
                    *("NoTranscriptError", "WindowMissingError", "JobNotFoundError", "FusionInputError"),
                ),
            ),
            "CompleteJob": _task(
                values["complete_job"], 60, "JobSucceeded", ("job", "result"), catch=_catch("FailJob")
            ),
            "JobSucceeded": {"Type": "Succeed"},
            "FailJob": _task(
                values["fail_job"],
                60,
                "JobFailed",
                ("job", "error"),
                outputs=("error", "reason"),
                result="failure",
            ),
            "JobFailed": {"Type": "Fail", "ErrorPath": "$.failure.error", "CausePath": "$.failure.reason"},
        },
    }


def _audio_branch(values: Mapping[str, Any]) -> State:
    choices = [
        _condition("media.audio", "transcribe", "StartTranscription"),
        _condition("media.audio", "server", "ScaleUpFleetForAudio"),
    ]
    return {
        "StartAt": "ChooseAudioEngine",
        "States": {
            "ChooseAudioEngine": {"Type": "Choice", "Choices": choices, "Default": "SkipAudio"},
            "SkipAudio": {"Type": "Pass", "End": True},
            **_poll_states(values, "Transcription", "transcription", "Audio", "audio", "name", 90),
            **_fleet_states(values, "Audio", "Audio"),
            "HasInlineAudioWindows": _choose(
                "media.has_inline_windows", "TranscribeAudioInline", "TranscribeAudioDistributed"
            ),
            **_window_maps(values, "transcribe_audio", "TranscribeAudio", "audio", "Audio", "AudioWindows"),
            "RecordAudioFailure": _record_failure(values, "audio"),
        },
    }


def _face_branch(values: Mapping[str, Any]) -> State:
    choices = [_condition("media.faces", "rekognition", "StartFaceDetection")]
    return {
        "StartAt": "ChooseFaceEngine",
        "States": {
            "ChooseFaceEngine": {"Type": "Choice", "Choices": choices, "Default": "FacesFromLipReading"},
            "FacesFromLipReading": {
                "Type": "Pass",
                "Comment": "The face tracks are part of lip reading, or disabled.",
                "End": True,
            },
            **_poll_states(
                values, "FaceDetection", "face_detection", "Face", "faces", "rekognition_job_id", 330
            ),
            "RecordFaceFailure": _record_failure(values, "faces"),
        },
    }


def _lip_branch(values: Mapping[str, Any]) -> State:
    choices = [_condition("media.lips", "none", "SkipLipReading")]
    return {
        "StartAt": "IsLipReadingEnabled",
        "States": {
            "IsLipReadingEnabled": {"Type": "Choice", "Choices": choices, "Default": "ScaleUpFleetForLips"},
            "SkipLipReading": {"Type": "Pass", "End": True},
            **_fleet_states(values, "Lips", "Lip"),
            "HasInlineLipWindows": _choose(
                "media.has_inline_windows", "ReadLipsInline", "ReadLipsDistributed"
            ),
            **_window_maps(
                *(values, "read_lips", "ReadLips", "lips", "Lip", "LipsWindows"),
                permanent_errors=("InvalidMediaError", "ObjectNotFoundError", *_SERVER_ERRORS),
            ),
            "RecordLipFailure": _record_failure(values, "lips"),
        },
    }


def _poll_states(
    values: Mapping[str, Any],
    service: str,
    function: str,
    source: str,
    key: str,
    id_key: str,
    check_timeout_s: int,
) -> State:
    """Return the states that start an asynchronous AWS job and poll it until it is done."""
    failure, done = f"Record{source}Failure", f"{key.capitalize()}Done"
    outputs = (id_key, "is_done", "deadline")
    return {
        f"Start{service}": _task(
            *(values[f"start_{function}"], 60, f"WaitFor{service}"),
            outputs=outputs,
            result=key,
            catch=_catch(failure, "SourceFailedError"),
        ),
        f"WaitFor{service}": _wait(f"Check{service}"),
        f"Check{service}": _task(
            *(values[f"check_{function}"], check_timeout_s, f"Is{service}Complete", ("job", key)),
            outputs=outputs,
            result=key,
            catch=_catch(failure, "SourceFailedError", "SourceTimeoutError"),
        ),
        f"Is{service}Complete": _choose(f"{key}.is_done", done, f"WaitFor{service}"),
        done: {"Type": "Pass", "End": True},
    }


def _fleet_states(values: Mapping[str, Any], suffix: str, source: str) -> State:
    """Return the states that start the GPU fleet and wait until a server is ready."""
    failure, outputs = f"Record{source}Failure", ("is_ready", "deadline")
    return {
        f"ScaleUpFleetFor{suffix}": _task(
            *(values["scale_up_fleet"], 60, f"CheckFleetFor{suffix}"),
            outputs=outputs,
            result="fleet",
            catch=_catch(failure, "FleetTimeoutError"),
        ),
        f"CheckFleetFor{suffix}": _task(
            *(values["check_fleet"], 60, f"IsFleetReadyFor{suffix}", ("job", "fleet")),
            outputs=outputs,
            result="fleet",
            catch=_catch(failure, "FleetTimeoutError", "AuthenticationError", "ConfigurationError"),
        ),
        f"IsFleetReadyFor{suffix}": _choose(
            "fleet.is_ready", f"HasInline{source}Windows", f"WaitForFleetFor{suffix}"
        ),
        f"WaitForFleetFor{suffix}": _wait(f"CheckFleetFor{suffix}"),
    }


def _window_maps(
    values: Mapping[str, Any],
    function: str,
    name: str,
    source_key: str,
    source: str,
    label: str,
    permanent_errors: Sequence[str] = _SERVER_ERRORS,
) -> State:
    """Return the inline map over the windows of a short video, and the distributed one for a long video."""
    shared = {
        "Type": "Map",
        "ItemSelector": {"job.$": "$.job", "window.$": "$$.Map.Item.Value"},
        "MaxConcurrency": values["max_concurrent_windows"],
        "ResultPath": None,
        "Catch": _catch(f"Record{source}Failure"),
        "End": True,
    }

    def process(task: str, failure: str, **config: str) -> State:
        return {
            "ProcessorConfig": config,
            "StartAt": task,
            "States": {
                task: _task(
                    *(values[function], 900, None, ("job", "window")),
                    catch=_catch(failure, *permanent_errors),
                    retry=_RETRY_WITH_SERVER,
                ),
                failure: _record_failure(values, source_key, "window"),
            },
        }

    return {
        f"{name}Inline": {
            **shared,
            "ItemsPath": "$.media.windows",
            "ItemProcessor": process(name, f"Record{source}WindowFailure", Mode="INLINE"),
        },
        f"{name}Distributed": {
            **shared,
            "Comment": "A long video: each window is a child execution with its own history.",
            "Label": label,
            "ItemReader": {
                "Resource": "arn:aws:states:::s3:getObject",
                "ReaderConfig": {"InputType": "JSON"},
                "Parameters": {"Bucket": values["results_bucket"], "Key.$": "$.media.windows_key"},
            },
            "ToleratedFailureCount": 0,
            "ItemProcessor": process(
                f"{name}WindowDistributed",
                f"Record{source}WindowFailureDistributed",
                Mode="DISTRIBUTED",
                ExecutionType="STANDARD",
            ),
        },
    }


def _record_failure(values: Mapping[str, Any], source_key: str, *inputs: str) -> State:
    state = _task(values["record_source_failure"], 30, None, ("job", "error", *inputs))
    state["Parameters"]["Payload"]["source"] = source_key
    return state


def _retrier(
    errors: Sequence[str], interval_s: int, max_attempts: int, backoff_rate: float = 2, max_delay_s: int = 60
) -> State:
    return {
        "ErrorEquals": list(errors),
        "IntervalSeconds": interval_s,
        "MaxAttempts": max_attempts,
        "BackoffRate": backoff_rate,
        "MaxDelaySeconds": max_delay_s,
        "JitterStrategy": "FULL",
    }


_LAMBDA_ERRORS = (
    *("Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException"),
    *("Lambda.TooManyRequestsException", "Lambda.ResourceNotReadyException", "Lambda.Unknown"),
)
_RETRY = (
    _retrier(("AwsUnavailableError", *_LAMBDA_ERRORS), 2, 6),
    _retrier(("States.Timeout", "Sandbox.Timedout", "Runtime.ExitError"), 5, 1),
)
_RETRY_WITH_SERVER = (
    _retrier(("OverloadedError", "UnavailableError"), 5, 12, 1.6, 120),
    _retrier(
        ("DeadlineError", "ServerStalledError", "DataLossError", "SupersededError", "CallCancelledError"),
        5,
        2,
    ),
    *_RETRY,
)


def _task(
    arn: str,
    timeout_s: int,
    next_state: str | None,
    inputs: Sequence[str] = ("job",),
    *,
    outputs: Sequence[str] = (),
    result: str | None = None,
    catch: Sequence[State] = (),
    retry: Sequence[State] = _RETRY,
) -> State:
    """Return a state that invokes a function with ``inputs`` of the state, and stores ``outputs`` under ``result``."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": arn, "Payload": {f"{name}.$": f"$.{name}" for name in inputs}},
        "TimeoutSeconds": timeout_s,
        **({"ResultSelector": {f"{name}.$": f"$.Payload.{name}" for name in outputs}} if outputs else {}),
        "ResultPath": result and f"$.{result}",
        "Retry": list(retry),
        **({"Catch": list(catch)} if catch else {}),
        **({"Next": next_state} if next_state else {"End": True}),
    }


def _catch(next_state: str, *errors: str) -> list[State]:
    """Return catchers of the expected errors and of all others; both lead to the same state."""
    groups = [list(errors), ["States.ALL"]] if errors else [["States.ALL"]]
    return [{"ErrorEquals": group, "ResultPath": "$.error", "Next": next_state} for group in groups]


def _condition(variable: str, value: str, next_state: str) -> State:
    return {"Variable": f"$.{variable}", "StringEquals": value, "Next": next_state}


def _choose(variable: str, if_true: str, otherwise: str) -> State:
    choice = {"Variable": f"$.{variable}", "BooleanEquals": True, "Next": if_true}
    return {"Type": "Choice", "Choices": [choice], "Default": otherwise}


def _wait(next_state: str) -> State:
    return {"Type": "Wait", "SecondsPath": "$.settings.poll_interval_s", "Next": next_state}
