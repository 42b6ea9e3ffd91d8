"""Tests of each patch of moto, and that it is still needed: ``test_moto_without…`` fails once moto fixes the problem."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import textwrap
from concurrent.futures import ProcessPoolExecutor

import pytest

# Imported once, by the process that forks a subprocess for each script.
PRELOADED = ["boto3", "moto.server", "gorggle_local.aws.moto_patches", "tests.e2e.emulator.service_patches"]

_SCRIPT_HEADER = """
import io, json, time, zipfile, os
import boto3
from tests.clips import EXAMPLES
from moto import mock_aws
from gorggle_local.aws import moto_patches
from tests.e2e.emulator import service_patches
from tests.e2e.emulator.fake_services import GroundTruth
calls = []
def invoke(function, payload, request_headers, response_headers):
    calls.append((function.function_name, payload))
    return json.dumps({"ran": True})
GROUND_TRUTH = GroundTruth((EXAMPLES,))
def create_function():
    iam = boto3.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("f.py", "def h(e, c): return 1")
    created = boto3.client("lambda").create_function(FunctionName="f", Runtime="python3.12", Role=role, Handler="f.h", Code={"ZipFile": buffer.getvalue()})
    return created["FunctionArn"], role
def wait_until(condition, seconds=5):
    deadline = time.time() + seconds
    while not condition() and time.time() < deadline:
        time.sleep(0.05)
    return condition()
CONFIG = {"stepfunctions": {"execute_state_machine": True}}
"""


def execute(script: str) -> str:
    """Run a script in this process; return its last line of output."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(script, {})
    return output.getvalue().strip().splitlines()[-1]


def run_script(body: str) -> str:
    """Run a script in a subprocess, so that its patches do not affect other tests; return its last line of output."""
    script = (
        _SCRIPT_HEADER + "with mock_aws(config=CONFIG):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, mp_context=context) as subprocess:
        return subprocess.submit(execute, script).result(timeout=120)


FUNCTION = """
arn, _ = create_function()
response = boto3.client("lambda").invoke(FunctionName="f", Payload=b'{"x": 1}')
print(response["Payload"].read().decode())
"""


def test_the_patched_lambda_invokes_the_function() -> None:
    assert json.loads(run_script("moto_patches.patch_lambda(invoke)\n" + FUNCTION)) == {"ran": True}


def test_moto_without_the_patch_only_echoes_the_event() -> None:
    echoed = run_script(
        'CONFIG["lambda"] = {"use_docker": False}\nwith mock_aws(config=CONFIG):\n'
        + textwrap.indent(FUNCTION, "    ")
    )
    assert json.loads(echoed) == {"x": 1}


RULE = """
arn, _ = create_function()
events = boto3.client("events")
events.put_rule(Name="r", EventPattern='{"source": ["me"]}')
events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": arn}])
try:
    events.put_events(Entries=[{"Source": "me", "DetailType": "d", "Detail": '{"a": 1}'}])
    wait_until(lambda: calls, 3)
    print(json.dumps([json.loads(payload)["detail"] for _, payload in calls]))
except NotImplementedError:
    print("not implemented")
"""


def test_an_event_rule_invokes_a_function() -> None:
    patches = "moto_patches.patch_lambda(invoke)\nmoto_patches.patch_event_rules()\n"
    assert json.loads(run_script(patches + RULE)) == [{"a": 1}]


def test_moto_without_the_patch_does_not_support_lambda_targets() -> None:
    assert run_script("moto_patches.patch_lambda(invoke)\n" + RULE) == "not implemented"


EXECUTION = """
_, role = create_function()
sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="q")["QueueUrl"]
events = boto3.client("events")
events.put_rule(Name="r", EventPattern='{"source": ["aws.states"], "detail": {"status": ["FAILED"]}}')
events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}])
sfn = boto3.client("stepfunctions")
definition = {"StartAt": "No", "States": {"No": {"Type": "Fail", "Error": "E", "Cause": "c"}}}
machine = sfn.create_state_machine(name="m", definition=json.dumps(definition), roleArn=role)["stateMachineArn"]
execution = sfn.start_execution(stateMachineArn=machine, name="x", input='{"job": 1}')["executionArn"]
wait_until(lambda: sfn.describe_execution(executionArn=execution)["status"] == "FAILED")
time.sleep(1)
messages = sqs.receive_message(QueueUrl=url).get("Messages", [])
print(json.dumps([json.loads(m["Body"])["detail"] for m in messages]))
"""


def test_the_end_of_an_execution_sends_an_event() -> None:
    (detail,) = json.loads(run_script("moto_patches.patch_execution_events()\n" + EXECUTION))
    assert (detail["status"], detail["error"], detail["input"]) == ("FAILED", "E", '{"job": 1}')


def test_moto_without_the_patch_sends_no_event_at_the_end_of_an_execution() -> None:
    assert json.loads(run_script(EXECUTION)) == []


QUEUE = """
arn, _ = create_function()
sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="q")["QueueUrl"]
boto3.client("lambda").create_event_source_mapping(EventSourceArn="arn:aws:sqs:us-east-1:123456789012:q", FunctionName="f")
sqs.send_message(QueueUrl=url, MessageBody="hello")
print(json.dumps([len(calls), len(sqs.receive_message(QueueUrl=url).get("Messages", []))]))
"""


def test_messages_stay_in_the_queue_for_the_poller() -> None:
    patches = "moto_patches.patch_lambda(invoke)\nmoto_patches.patch_queues()\n"
    assert json.loads(run_script(patches + QUEUE)) == [0, 1]


def test_moto_without_the_patch_invokes_the_function_while_a_message_is_sent() -> None:
    assert json.loads(run_script("moto_patches.patch_lambda(invoke)\n" + QUEUE)) == [1, 0]


TRANSCRIPTION = """
s3 = boto3.client("s3")
s3.create_bucket(Bucket="videos")
s3.put_object(Bucket="videos", Key="uploads/j/{clip}.mp4", Body=b"x")
transcribe = boto3.client("transcribe")
transcribe.start_transcription_job(TranscriptionJobName="n", LanguageCode="en-US", Media={{"MediaFileUri": "s3://videos/x.wav"}}, OutputBucketName="videos", OutputKey="jobs/j/t.json")
for _ in range(4):
    job = transcribe.get_transcription_job(TranscriptionJobName="n")["TranscriptionJob"]
objects = s3.list_objects_v2(Bucket="videos", Prefix="jobs/").get("Contents", [])
text = json.loads(s3.get_object(Bucket="videos", Key="jobs/j/t.json")["Body"].read())["results"]["transcripts"][0]["transcript"] if objects else ""
print(json.dumps([job["TranscriptionJobStatus"], text[:8], job.get("FailureReason", "")]))
"""


def test_a_transcription_is_written_from_the_reference_transcript() -> None:
    patches = "service_patches.patch_transcribe(GROUND_TRUTH)\n"
    assert json.loads(run_script(patches + TRANSCRIPTION.format(clip="demo"))) == [
        "COMPLETED",
        "bin blue",
        "",
    ]


def test_fake_transcribe_fails_without_a_reference_transcript() -> None:
    status, text, reason = json.loads(
        run_script("service_patches.patch_transcribe(GROUND_TRUTH)\n" + TRANSCRIPTION.format(clip="other"))
    )
    assert (status, text) == ("FAILED", "")
    assert "fake service" in reason


def test_moto_without_the_patch_writes_no_transcript() -> None:
    assert json.loads(run_script(TRANSCRIPTION.format(clip="demo")))[:2] == ["COMPLETED", ""]


FACES = """
rekognition = boto3.client("rekognition")
try:
    search = rekognition.start_face_detection(Video={"S3Object": {"Bucket": "videos", "Name": "uploads/j/demo.mp4"}})["JobId"]
    rekognition.get_face_detection(JobId=search)
    print(len(rekognition.get_face_detection(JobId=search, MaxResults=10)["Faces"]))
except NotImplementedError:
    print("not implemented")
"""


def test_faces_are_detected_from_the_reference_transcript() -> None:
    assert run_script("service_patches.patch_rekognition(GROUND_TRUTH)\n" + FACES) == "10"


def test_moto_without_the_patch_detects_no_faces() -> None:
    assert run_script(FACES) == "not implemented"


RETRY = """
_, role = create_function()
sfn = boto3.client("stepfunctions")
task = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": "none"}, "End": True,
    "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": INTERVAL_S, "MaxAttempts": 1, "BackoffRate": 2}]}
machine = sfn.create_state_machine(name="m", definition=json.dumps({"StartAt": "T", "States": {"T": task}}), roleArn=role)["stateMachineArn"]
start_s = time.time()
execution = sfn.start_execution(stateMachineArn=machine, name="x")["executionArn"]
wait_until(lambda: sfn.describe_execution(executionArn=execution)["status"] == "FAILED", 90)
print(time.time() - start_s)
"""
RETRY_DELAY_S = 3
LONG_RETRY_DELAY_S = 60


def test_retry_delays_are_scaled() -> None:
    script = RETRY.replace("INTERVAL_S", str(LONG_RETRY_DELAY_S))
    assert float(run_script("service_patches.patch_retry_delays(0.01)\n" + script)) < LONG_RETRY_DELAY_S


def test_moto_without_the_patch_does_not_scale_retry_delays() -> None:
    assert float(run_script(RETRY.replace("INTERVAL_S", str(RETRY_DELAY_S)))) >= RETRY_DELAY_S


@pytest.mark.parametrize(
    "name",
    [
        "patch_lambda",
        "patch_event_rules",
        "patch_execution_events",
        "patch_queues",
    ],
)
def test_every_patch_is_applied(name: str) -> None:
    import inspect

    from gorggle_local.aws import moto_patches

    assert f"{name}(" in inspect.getsource(moto_patches.apply_patches)


PARSING = """
from moto.stepfunctions.parser.asl.antlr.runtime.ASLParser import ASLParser
from moto.stepfunctions.parser.asl.utils import json_path
parsed = []
state_machine, parse = ASLParser.state_machine, json_path.parse
def count(self):
    parsed.append("machine")
    return state_machine(self)
def count_path(path):
    parsed.append(path)
    return parse(path)
ASLParser.state_machine, json_path.parse = count, count_path
PATCH
_, role = create_function()
sfn = boto3.client("stepfunctions")
choice = {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericGreaterThan": 1, "Next": "Large"}], "Default": "Small"}
definition = {"StartAt": "Choose", "States": {
    "Choose": choice,
    "Large": {"Type": "Pass", "Parameters": {"size.$": "$.n"}, "End": True},
    "Small": {"Type": "Fail", "Error": "E", "Cause": "too small"},
}}
machine = sfn.create_state_machine(name="m", definition=json.dumps(definition), roleArn=role)["stateMachineArn"]
def run(n):
    execution = sfn.start_execution(stateMachineArn=machine, name=f"n{n}", input=json.dumps({"n": n}))["executionArn"]
    wait_until(lambda: sfn.describe_execution(executionArn=execution)["status"] != "RUNNING")
    done = sfn.describe_execution(executionArn=execution)
    return done["status"], json.loads(done.get("output", "null"))
results = [run(n) for n in (2, 0, 3)]
print(json.dumps([results, parsed.count("machine"), parsed.count("$.n")]))
"""
PARSING_RESULTS = [["SUCCEEDED", {"size": 2}], ["FAILED", None], ["SUCCEEDED", {"size": 3}]]


def test_a_state_machine_is_parsed_once() -> None:
    patched = PARSING.replace("PATCH", "moto_patches.cache_parsed_state_machines()")
    assert json.loads(run_script(patched)) == [PARSING_RESULTS, 1, 1]


def test_moto_without_the_patch_parses_a_state_machine_at_every_execution() -> None:
    results, machines, paths = json.loads(run_script(PARSING.replace("PATCH", "")))
    assert results == PARSING_RESULTS
    assert machines == 4
    assert paths >= 3


MODULES = """
from moto import backends
before = list(backends.list_of_moto_modules())
PATCH
listed = []
listdir = os.listdir
os.listdir = lambda *folder: listed.append(1) or listdir(*folder)
assert list(backends.list_of_moto_modules()) == list(backends.list_of_moto_modules()) == before
print(len(listed))
"""


def test_the_modules_of_moto_are_listed_once() -> None:
    assert run_script(MODULES.replace("PATCH", "moto_patches.cache_module_names()")) == "0"


def test_moto_without_the_patch_lists_its_modules_at_every_request() -> None:
    assert run_script(MODULES.replace("PATCH", "")) == "2"
