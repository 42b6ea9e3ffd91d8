"""Tests of corrections, result versions and API tokens."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_fusion.result import load_result_schema
from gorggle_lambdas.common.corrections import CorrectionError, apply_corrections, parse_corrections
from gorggle_lambdas.common.result_publisher import render_formats
from gorggle_lambdas.handlers.authorize_request import find_owner
from tests.lambdas.moto_environment import JOB_ID, Cloud, job_event


def word(text: str, start_s: float, end_s: float) -> dict[str, Any]:
    return {
        "text": text,
        "start_s": start_s,
        "end_s": end_s,
        "confidence": 0.5,
        "source": "both",
        "alternatives": [],
    }


def build_result(*texts: str) -> dict[str, Any]:
    segments = []
    for number, text in enumerate(texts, 1):
        words = [
            word(entry, number * 10 + index, number * 10 + index + 0.8)
            for index, entry in enumerate(text.split())
        ]
        segments.append(
            {
                "id": f"segment-{number}",
                "person": f"person-{number}",
                "start_s": words[0]["start_s"],
                "end_s": words[-1]["end_s"],
                "text": text,
                "confidence": 0.5,
                "words": words,
            }
        )
    absent = {"status": "absent", "engine": "", "failures": []}
    return {
        "schema_version": "1.3",
        "media": {
            "name": "x",
            "duration_s": 100.0,
            "width_px": 1,
            "height_px": 1,
            "frame_rate_hz": 25.0,
            "video_codec": "",
            "audio_codec": "",
        },
        "language": "en",
        "model": None,
        "is_degraded": False,
        "sources": {"lips": {**absent, "status": "used"}, "audio": absent, "faces": absent},
        "noise": [],
        "people": [
            {"name": f"person-{number}", "first_s": 0.0, "voices": [], "faces": []}
            for number in range(1, len(texts) + 1)
        ],
        "segments": segments,
        "faces": [],
        "omissions": [],
    }


def correct(document: dict[str, Any], **corrections: Any) -> dict[str, Any]:
    return apply_corrections(document, parse_corrections(corrections))


def test_unchanged_words_keep_their_times_and_sources() -> None:
    before = build_result("bin blue at f two now")
    after = correct(before, segments=[{"id": "segment-1", "text": "bin green at f two now please"}])
    words = after["segments"][0]["words"]
    assert [entry["text"] for entry in words] == ["bin", "green", "at", "f", "two", "now", "please"]
    assert words[0] == before["segments"][0]["words"][0]
    assert (words[1]["start_s"], words[1]["end_s"], words[1]["source"]) == (11, 11.8, "correction")
    assert words[5]["end_s"] <= words[6]["start_s"]
    assert after["segments"][0]["text"] == "bin green at f two now please"
    assert before == build_result("bin blue at f two now")


def test_a_word_replacing_two_has_the_time_of_both() -> None:
    after = correct(build_result("going to sleep"), segments=[{"id": "segment-1", "text": "gonna sleep"}])
    assert (after["segments"][0]["words"][0]["start_s"], after["segments"][0]["words"][0]["end_s"]) == (
        10,
        11.8,
    )


def test_segments_are_deleted_and_reassigned_and_people_named() -> None:
    after = correct(
        build_result("entry two", "three"),
        segments=[{"id": "segment-1", "person": "person-2"}, {"id": "segment-2", "delete": True}],
        names={"person-2": " Anna  Smith "},
    )
    assert [segment["person"] for segment in after["segments"]] == ["person-2"]
    assert after["names"] == {"person-2": "Anna Smith"}
    assert "<v Anna Smith>entry two" in render_formats(after)["vtt"]


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        ({"segments": [{"id": "segment-9", "text": "x"}]}, "segment-9"),
        ({"segments": [{"id": "segment-1", "text": " "}]}, "delete"),
        ({"segments": [{"id": "segment-1", "text": 3}]}, "characters"),
        ({"segments": [{"id": "segment-1", "person": "person-9"}]}, "person-9"),
        ({"segments": [{"text": "x"}]}, "expected id"),
        ({"segments": [{"id": "segment-1"}, {"id": "segment-1"}]}, "twice"),
        ({"segments": {}}, "not an array"),
        ({"segments": [1]}, "not an object"),
        ({"names": {"person-1": ""}}, "characters"),
        ({"names": []}, "not an object"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_invalid_correction_names_the_error(corrections: dict[str, Any], message: str) -> None:
    with pytest.raises(CorrectionError, match=message):
        correct(build_result("entry two"), **corrections)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", "longer"]), min_size=1, max_size=8),
    st.lists(st.sampled_from(["a", "b", "c", "e", "longest"]), min_size=1, max_size=8),
)
def test_a_corrected_result_is_valid_with_ordered_words(before: list[str], after: list[str]) -> None:
    document = correct(
        build_result(" ".join(before)), segments=[{"id": "segment-1", "text": " ".join(after)}]
    )
    jsonschema.validate(document, load_result_schema())
    words = document["segments"][0]["words"]
    assert [entry["text"] for entry in words] == after
    assert all(entry["end_s"] > entry["start_s"] for entry in words)
    assert all(
        entry["end_s"] <= following["start_s"] + 1e-9 for entry, following in itertools.pairwise(words)
    )
    assert set(render_formats(document)) == {"json", "vtt", "srt", "ttml", "txt"}


# ------------------------------------------------------------------------------------------------------------- the API


@pytest.fixture
def finished_job(cloud: Cloud) -> Cloud:
    """Create a finished job with a result; return the AWS resources."""
    event = job_event(cloud)
    for extension, text in render_formats(build_result("bin blue at f two now")).items():
        cloud.client("s3").put_object(
            Bucket=cloud.stack["bucket:results"],
            Key=f"jobs/{JOB_ID}/results/1-1/result.{extension}",
            Body=text.encode(),
        )
    job_result = {
        "versions": [{"version": 1, "folder": "1-1"}],
        "sources": {},
        "is_degraded": False,
        "usage": {"windows": 0, "transcribed_s": 0.0, "face_detection_s": 0.0, "gpu_s": 0.0},
    }
    cloud.call("complete_job", {**event, "result": job_result})
    return cloud


PATH = {"pathParameters": {"job_id": JOB_ID}}


def test_a_result_is_a_redirect_or_inline(finished_job: Cloud) -> None:
    status, _ = finished_job.api("get_result", **PATH, queryStringParameters={"format": "srt"})
    assert status == 302
    assert f"jobs/{JOB_ID}/results/1-1/result.srt" in finished_job.headers["location"]
    status, text = finished_job.api(
        "get_result", **PATH, queryStringParameters={"format": "txt", "inline": "true"}
    )
    assert (status, text) == (200, "bin blue at f two now\n")


@pytest.mark.parametrize(
    ("query", "status"),
    [({"format": "doc"}, 400), ({"version": "x"}, 400), ({"version": "0"}, 400), ({"version": "2"}, 404)],
)
def test_a_missing_version_or_format_is_rejected(
    finished_job: Cloud, query: dict[str, str], status: int
) -> None:
    assert finished_job.api("get_result", **PATH, queryStringParameters=query)[0] == status


def test_an_unfinished_job_has_no_result(cloud: Cloud) -> None:
    job_event(cloud)
    assert cloud.api("get_result", **PATH)[0] == 409
    assert cloud.api("save_corrections", **PATH, body={"base_version": 1})[0] == 409


def test_corrections_create_versions(finished_job: Cloud) -> None:
    body = {"base_version": 1, "segments": [{"id": "segment-1", "text": "place blue at f two now"}]}
    status, response = finished_job.api("save_corrections", **PATH, body=body)
    assert (status, response["version"]) == (200, 2)
    assert finished_job.api("save_corrections", **PATH, body=body)[0] == 409
    assert finished_job.api("save_corrections", **PATH, body={"base_version": 2, "segments": 5})[0] == 400
    assert finished_job.api("save_corrections", **PATH, body={})[0] == 400
    texts = [
        finished_job.api(
            "get_result",
            **PATH,
            queryStringParameters={"version": version, "format": "txt", "inline": "true"},
        )[1]
        for version in ("1", "2")
    ]
    assert [text.split()[0] for text in texts] == ["bin", "place"]


def test_a_concurrent_correction_is_rejected(finished_job: Cloud) -> None:
    from gorggle_lambdas.common.job_table import JobTable

    real = JobTable.update

    def update_after_concurrent_save(self: JobTable, job_id: str, values: Any, **extra: Any) -> bool:
        real(self, job_id, {"result_version": 2})
        return real(self, job_id, values, **extra)

    body = {"base_version": 1, "names": {"person-1": "Anna"}}
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(JobTable, "update", update_after_concurrent_save)
        status, problem = finished_job.api("save_corrections", **PATH, body=body)
    assert status == 409
    assert "saved concurrently" in problem["detail"]


def test_the_openapi_document_is_served(cloud: Cloud) -> None:
    status, document = cloud.api("get_openapi", owner="")
    assert (status, document["openapi"]) == (200, "3.1.0")


# ------------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("header", "owner"),
    [
        ("Bearer secret", "ada"),
        ("bearer secret", "ada"),
        ("Bearer wrong", None),
        ("Basic secret", None),
        ("", None),
        ("Bearer ", None),
    ],
)
def test_a_token_identifies_its_owner(header: str, owner: str | None) -> None:
    assert find_owner(header, {"bob": "0" * 64, "ada": hashlib.sha256(b"secret").hexdigest()}) == owner


def test_the_authorizer_uses_the_simple_response_format(cloud: Cloud) -> None:
    cloud.client("secretsmanager").put_secret_value(
        SecretId=cloud.stack["secret:api_tokens"],
        SecretString=json.dumps({"ada": hashlib.sha256(b"secret").hexdigest()}),
    )
    event = {
        "version": "2.0",
        "type": "REQUEST",
        "headers": {"Authorization": "Bearer secret"},
        "requestContext": {},
    }
    assert cloud.call("authorize_request", event) == {"isAuthorized": True, "context": {"owner": "ada"}}
    event = copy.deepcopy(event) | {"headers": {}}
    assert not cloud.call("authorize_request", event)["isAuthorized"]
