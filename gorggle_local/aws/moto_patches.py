"""Patches for missing, wrong or slow behaviour of moto 5.2.5. Each has a test that fails once moto has fixed it.

``apply_patches`` changes moto globally: call it once, in a dedicated process.
"""

from __future__ import annotations

import copy
import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from moto import backends
from moto.awslambda.models import LambdaFunction
from moto.events.models import Rule, events_backends
from moto.sqs.models import Queue
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import json_path
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.utilities.arns import parse_arn

InvokeFunction = Callable[[LambdaFunction, str, Any, Any], str]


def apply_patches(invoke: InvokeFunction) -> None:
    """Apply all patches.

    Args:
        invoke: runs a function: (function, payload, request headers, response headers) → payload.
    """
    patch_lambda(invoke)
    patch_event_rules()
    patch_execution_events()
    patch_queues()
    cache_parsed_state_machines()
    cache_module_names()


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


def cache_parsed_state_machines() -> None:
    """Parse each state machine and each JSONPath once: moto parses the whole machine at every execution."""

    @functools.lru_cache(maxsize=32)
    def parse_once(definition: str) -> Any:
        return parse(definition)

    def parse_cached(definition: str) -> tuple[Any, Any]:
        program, tree = parse_once(definition)
        # The states of a program remember what they did in an execution.
        return copy.deepcopy(program), tree

    parse = AmazonStateLanguageParser.parse
    AmazonStateLanguageParser.parse = staticmethod(parse_cached)  # type: ignore[method-assign]
    json_path.parse = functools.lru_cache(maxsize=1024)(json_path.parse)  # type: ignore[attr-defined]


def cache_module_names() -> None:
    """List moto's modules once: moto lists its folder at every request."""
    names = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: names


def _run_in_background(task: Callable[[], object]) -> None:
    threading.Thread(target=task, daemon=True).start()
