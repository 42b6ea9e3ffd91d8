"""Event source mappings from SQS: receives messages and invokes functions, like Lambda."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from moto.awslambda.models import lambda_backends
from moto.sqs.models import sqs_backends

POLL_INTERVAL_S = 0.05


class SqsPoller:
    """Polls the queues of all enabled mappings in one thread."""

    def __init__(self, account: str, region: str, sqs: Any, functions: Any) -> None:
        self._backend = lambda_backends[account][region]
        self._queues = sqs_backends[account][region].queues
        self._region = region
        self._sqs = sqs
        self._functions = functions
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop_event.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop_event.wait(POLL_INTERVAL_S):
            for mapping in self._backend.list_event_source_mappings("", ""):
                if mapping.enabled and ":sqs:" in mapping.event_source_arn:
                    # For example, a queue that is being deleted.
                    with contextlib.suppress(Exception):
                        self._poll(mapping)

    def _poll(self, mapping: Any) -> None:
        name = mapping.event_source_arn.rpartition(":")[2]
        # Read from moto directly: a request for every poll would keep a tenth of a CPU busy.
        if not self._queues[name].messages:
            return
        url = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        response = self._sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=min(10, mapping.batch_size), AttributeNames=["All"]
        )
        messages = response.get("Messages", [])
        if messages:
            failed = self._invoke(mapping, messages)
            for message in messages:
                if message["MessageId"] not in failed:
                    self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def _invoke(self, mapping: Any, messages: list[dict[str, Any]]) -> set[str]:
        """Invoke the function; return the ids of messages that failed and become visible again."""
        all_ids = {message["MessageId"] for message in messages}
        event = {"Records": [self._build_record(mapping, message) for message in messages]}
        response = self._functions.invoke(FunctionName=mapping.function_arn, Payload=json.dumps(event))
        if response.get("FunctionError"):
            return all_ids
        reply = json.loads(response["Payload"].read() or b"null")
        if not isinstance(reply, dict):
            return set()
        return {item["itemIdentifier"] for item in reply.get("batchItemFailures", [])}

    def _build_record(self, mapping: Any, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": {
                **message.get("Attributes", {}),
                "SentTimestamp": str(int(time.time() * 1000)),
            },
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": mapping.event_source_arn,
            "awsRegion": self._region,
        }
