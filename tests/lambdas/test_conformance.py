"""Tests that the HTTP API conforms to its OpenAPI document, for the functions in this process and for the local API.

Schemathesis generates valid and invalid requests from the document, and checks every response against it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from moto import mock_aws
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from gorggle_lambdas.api import openapi
from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.result_publisher import RESULT_FORMATS, render_formats
from gorggle_local.aws import api_gateway
from gorggle_local.aws.pipeline import Server, Stack, deploy
from tests.e2e.pipeline import local_aws
from tests.lambdas.moto_environment import MANIFEST_DOCUMENT, SERVER_NAME, Cloud, create_cloud
from tests.lambdas.test_corrections import build_result

TOKEN, JOB_ID = "a-token", "ab" * 16
SCHEMA = schemathesis.openapi.from_dict(dict(openapi.load_openapi()))
OPERATIONS = {
    each["operationId"]: (path, method.upper())
    for path, item in openapi.load_openapi()["paths"].items()
    for method, each in item.items()
    if method != "parameters"
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# These modify the seeded job.
MODIFYING_OPERATIONS = ("deleteJob", "saveCorrections")
GENERATION_SETTINGS = settings(
    max_examples=3,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Api:
    """The API under test."""

    url: str
    stack: Stack
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, **extra: Any) -> requests.Response:
        return self.session.request(
            method, self.url + path, timeout=60, allow_redirects=False, **{"headers": AUTHORIZED, **extra}
        )

    def seed(self) -> None:
        """Create a finished job of the caller."""
        document = build_result("the first words", "and the second ones")
        for extension, text in render_formats(document).items():
            self.stack.client("s3").put_object(
                Bucket=self.stack["bucket:results"],
                Key=s3_objects.result_key(JOB_ID, "1", extension),
                Body=text.encode(),
                ContentType=RESULT_FORMATS[extension],
            )
        at = "2026-01-02T03:04:05.000000Z"
        item = {
            "job_id": JOB_ID,
            "owner": "ada",
            "state": "done",
            "stage": "done",
            "name": "talk.mp4",
            "bucket": self.stack["bucket:uploads"],
            "key": f"uploads/{JOB_ID}/talk.mp4",
            "created_at": at,
            "updated_at": at,
        }
        self.stack.client("dynamodb").put_item(
            TableName=self.stack["table:jobs"],
            Item={name: {"S": value} for name, value in item.items()}
            | {"attempt": {"N": "1"}, "result_version": {"N": "1"}, "size_bytes": {"N": "3"}}
            | {"versions": {"L": [{"M": {"version": {"N": "1"}, "folder": {"S": "1"}}}]}},
        )


AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


class Handlers:
    """API Gateway in front of the functions in this process, with the manifest's routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._functions = {
            function["trigger"]["route"]: (name, function["trigger"]["authorized"])
            for name, function in MANIFEST_DOCUMENT["functions"].items()
            if function["trigger"]["kind"] == "route"
        }

    def handle(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, source: str
    ) -> tuple[int, dict[str, str], bytes]:
        address = api_gateway.urlsplit(target)
        for route in sorted(self._functions, key=lambda each: (each == "$default", each.count("{"))):
            route_method, _, pattern = route.partition(" ")
            match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern), address.path)
            if route == "$default" or (match and route_method == method):
                break
        variables = (
            {name: api_gateway.unquote(value) for name, value in match.groupdict().items()} if match else {}
        )
        event = api_gateway._build_event(method, address, headers, body, source, route, variables)
        name, is_authorized = self._functions[route]
        if is_authorized and headers.get("authorization") == AUTHORIZED["authorization"]:
            event["requestContext"]["authorizer"] = {"lambda": {"owner": "ada"}}
        return api_gateway._to_http_response(self._cloud.call(name, event))


@contextlib.contextmanager
def in_process_api() -> Iterator[Api]:
    with mock_aws():
        cloud = create_cloud()
        server = api_gateway.create_server(0, Handlers(cloud), lambda _path, _body: None)  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Api(f"http://127.0.0.1:{server.server_address[1]}", cloud.stack)
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def local_api() -> Iterator[Api]:
    with local_aws() as addresses:
        stack = deploy(
            addresses["endpoint_url"],
            Server("127.0.0.1:1", SERVER_NAME, "", "", ""),
            {"ada": hashlib.sha256(TOKEN.encode()).hexdigest()},
        )
        yield Api(addresses["api_url"], stack)


@pytest.fixture(scope="module", params=[in_process_api, local_api], ids=lambda each: each.__name__)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with request.param() as running:
        running.seed()
        yield running
        running.session.close()


def list_generation_modes(path: str, method: str) -> list[GenerationMode]:
    """Return the modes for valid and, if the operation has inputs, invalid requests."""
    item = openapi.load_openapi()["paths"][path]
    has_input = "parameters" in item or {"parameters", "requestBody"} & set(item[method.lower()])
    return list(GenerationMode) if has_input else [GenerationMode.POSITIVE]


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(name, mode, id=f"{name}-{mode.value}")
        for name, endpoint in OPERATIONS.items()
        for mode in list_generation_modes(*endpoint)
    ],
)
def test_every_response_matches_the_document(api: Api, operation: str, mode: GenerationMode) -> None:
    path, method = OPERATIONS[operation]
    path_parameters = {"job_id": JOB_ID} if "{job_id}" in path and mode is GenerationMode.POSITIVE else {}
    status_codes = []

    @GENERATION_SETTINGS
    @given(case=SCHEMA[path][method].as_strategy(generation_mode=mode, path_parameters=path_parameters))
    def check_response(case: Any) -> None:
        if operation in MODIFYING_OPERATIONS:
            api.seed()
        response = case.call(base_url=api.url, session=api.session, headers=AUTHORIZED, allow_redirects=False)
        status_codes.append(response.status_code)
        # Unknown query parameters are ignored, as is customary; unknown body fields are not.
        strict = [checks.negative_data_rejection] if method in ("POST", "PUT") else []
        case.validate_response(response, checks=[*CHECKS, *strict])

    check_response()
    if operation in MODIFYING_OPERATIONS:
        api.seed()
    assert status_codes, "no request was generated"
    if path_parameters and operation in ("getJob", "getResult", "deleteJob"):
        assert min(status_codes) < 400, "no request found the seeded job"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing/here", None, 404),
        ("GET", "/", None, 404),
        ("PATCH", f"/jobs/{JOB_ID}", None, 405),
        ("POST", "/jobs", None, 405),
        ("GET", "/jobs/none", None, 404),
        ("GET", "/jobs?limit=0", None, 400),
        ("GET", f"/jobs/{JOB_ID}/result?format=exe", None, 400),
        ("POST", "/uploads", b"{", 400),
        ("POST", "/uploads", b"\xff\xfe", 400),
        ("POST", "/uploads", b'{"content_type": "text/html"}', 400),
        ("PUT", f"/jobs/{JOB_ID}/result", b'{"base_version": 7}', 409),
    ],
)
def test_every_error_is_problem_details(
    api: Api, method: str, path: str, body: bytes | None, status: int
) -> None:
    response = api.call(method, path, data=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "instance"} <= set(problem)
    if status == 405:
        assert "GET" in response.headers["allow"]


def test_a_missing_or_wrong_token_is_rejected(api: Api) -> None:
    for path, method in OPERATIONS.values():
        if openapi.load_openapi()["paths"][path][method.lower()].get("security") == []:
            continue
        for headers in ({}, {"authorization": "Bearer wrong"}):
            response = api.call(method, path.replace("{job_id}", JOB_ID), headers=headers, json={})
            assert response.status_code in (401, 403), (method, path)
            assert JOB_ID not in response.text.replace(path, "")


def test_the_openapi_document_requires_no_token(api: Api) -> None:
    response = api.call("GET", "/openapi.json", headers={})
    assert response.json() == json.loads(json.dumps(openapi.load_openapi()))
