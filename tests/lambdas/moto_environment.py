"""Creates the pipeline's tables, buckets and queues on in-process moto, and calls the functions."""

from __future__ import annotations

import importlib
import json
import os
import tomllib
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from gorggle_local.aws import pipeline as local_stack
from gorggle_local.aws.pipeline import MANIFEST, Server, Stack

MANIFEST_DOCUMENT: dict[str, Any] = tomllib.loads(MANIFEST.read_text("utf-8"))
SERVER_NAME = "gorggle.internal"


@dataclass
class LambdaContext:
    """Lambda context of an invocation."""

    function_name: str = "gorggle-test"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:gorggle-test"
    aws_request_id: str = "request-1"
    remaining_s: float = 60.0

    def get_remaining_time_in_millis(self) -> int:
        return int(self.remaining_s * 1000)


@dataclass
class Cloud:
    """The AWS resources of the functions, as in the manifest."""

    stack: Stack
    settings: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        return self.stack.client(service)

    def environment(self, function: str) -> dict[str, str]:
        environment = MANIFEST_DOCUMENT["functions"][function]["environment"]
        values = self.stack.values | {f"setting:{key}": value for key, value in self.settings.items()}
        return {key: str(values.get(value, value)) for key, value in environment.items()}

    def call(self, function: str, event: dict[str, Any], context: Any = None) -> Any:
        """Call a function with exactly the environment in the manifest."""
        handler = importlib.import_module(f"gorggle_lambdas.handlers.{function}").handler
        with patch.dict(os.environ, self.environment(function)):
            return handler(event, context or LambdaContext())

    def api(
        self,
        function: str,
        *,
        owner: str = "ada",
        body: Any = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> tuple[int, Any]:
        """Call a route's function as API Gateway does; return the status and the body, parsed if it is JSON."""
        authorizer = {"lambda": {"owner": owner}} if owner else {}
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "headers": headers or {},
            "requestContext": {
                "requestId": "call-1",
                "authorizer": authorizer,
                "http": {"method": "GET", "path": "/"},
            },
            "isBase64Encoded": False,
            **({"body": body if isinstance(body, str) else json.dumps(body)} if body is not None else {}),
            **extra,
        }
        response = self.call(function, event)
        self.headers = response["headers"]
        text = response.get("body")
        is_json = text and "json" in response["headers"].get("content-type", "")
        return response["statusCode"], json.loads(text) if is_json else text

    def item(self, job_id: str) -> dict[str, Any] | None:
        from gorggle_lambdas.common.job_table import JobTable

        return JobTable(self.stack["table:jobs"]).get(job_id)

    def put(self, key: str, content: bytes) -> str:
        """Upload a video; return its version."""
        response = self.client("s3").put_object(Bucket=self.stack["bucket:uploads"], Key=key, Body=content)
        return str(response["VersionId"])

    def document(self, key: str) -> Any:
        """Return a JSON object in the results bucket."""
        return json.loads(self.text(key))

    def text(self, key: str) -> str:
        """Return a text object in the results bucket."""
        response = self.client("s3").get_object(Bucket=self.stack["bucket:results"], Key=key)
        return str(response["Body"].read(), "utf-8")

    def result_keys(self) -> list[str]:
        response = self.client("s3").list_objects_v2(Bucket=self.stack["bucket:results"])
        return [found["Key"] for found in response.get("Contents", [])]

    def executions(self) -> list[dict[str, Any]]:
        response = self.client("stepfunctions").list_executions(stateMachineArn=self.stack["state_machine"])
        executions: list[dict[str, Any]] = response["executions"]
        return executions


def create_cloud(server: Server | None = None, **settings: Any) -> Cloud:
    """Create all resources except the functions."""
    stack = Stack("", "gorggle")
    stack.values |= {
        f"setting:{key}": setting["default"] for key, setting in MANIFEST_DOCUMENT["settings"].items()
    }
    local_stack._create_storage(stack, MANIFEST_DOCUMENT)
    environment = server or Server("127.0.0.1:1", SERVER_NAME, "", "", "")
    local_stack._create_secrets(stack, environment, {"ada": "0" * 64})
    stack.values |= {
        "server:address": environment.address,
        "server:name": environment.name,
        "fleet": "gorggle-fleet",
    }
    machine = stack.client("stepfunctions").create_state_machine(
        name="gorggle",
        definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
        roleArn=local_stack.ROLE,
    )
    stack.values["state_machine"] = machine["stateMachineArn"]
    return Cloud(stack, dict(settings))


JOB_ID = "0123456789abcdef0123456789abcdef"


def job_event(
    cloud: Cloud, content: bytes | None = None, name: str = "demo.mp4", **options: str
) -> dict[str, Any]:
    """Create a running job and its video; return the input of its tasks."""
    from gorggle_lambdas.common.job_table import RUNNING, JobTable

    key = f"uploads/{JOB_ID}/{name}"
    version = cloud.put(key, content) if content is not None else "none"
    job = {
        "job_id": JOB_ID,
        "bucket": cloud.stack["bucket:uploads"],
        "key": key,
        "version_id": version,
        "size_bytes": len(content or b""),
        "name": name,
        "options": {"lips": "av", "audio": "transcribe", "faces": "rekognition", "language": "", **options},
    }
    table = JobTable(cloud.stack["table:jobs"])
    table.delete(JOB_ID)
    table.create({**job, "owner": "ada", "state": RUNNING, "windows": {}})
    return {"job": {**job, "attempt": 1}}
