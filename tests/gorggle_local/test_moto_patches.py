"""Each patch of moto, and that it is still needed: the second half of each pair fails once moto mends it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_HEAD = """
import io, json, time, zipfile, os
os.environ |= dict(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-east-1")
import boto3
from pathlib import Path
from moto import mock_aws
from gorggle_local.aws import moto_patches
from tests.e2e.emulator import service_patches
from tests.e2e.emulator.fake_services import GroundTruth
called = []
def invoke(function, payload, given, headers):
    called.append((function.function_name, payload))
    return json.dumps({"ran": True})
TRUTHS = GroundTruth((Path("examples"),))
def function():
    iam = boto3.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("f.py", "def h(e, c): return 1")
    made = boto3.client("lambda").create_function(FunctionName="f", Runtime="python3.12", Role=role, Handler="f.h", Code={"ZipFile": buffer.getvalue()})
    return made["FunctionArn"], role
def until(condition, seconds=5):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.05)
    return condition()
CONFIG = {"stepfunctions": {"execute_state_machine": True}}
"""


def run(body: str) -> str:
    """Run a script in a subprocess, so that patches stay there, and return the last line that it printed."""
    script = _HEAD + "with mock_aws(config=CONFIG):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


FUNCTION = """
arn, _ = function()
answer = boto3.client("lambda").invoke(FunctionName="f", Payload=b'{"x": 1}')
print(answer["Payload"].read().decode())
"""


def test_a_function_runs() -> None:
    assert json.loads(run("moto_patches.patch_lambda(invoke)\n" + FUNCTION)) == {"ran": True}


def test_moto_without_the_patch_and_without_docker_runs_nothing() -> None:
    echoed = run(
        'CONFIG["lambda"] = {"use_docker": False}\nwith mock_aws(config=CONFIG):\n'
        + textwrap.indent(FUNCTION, "    ")
    )
    assert json.loads(echoed) == {"x": 1}


RULE = """
arn, _ = function()
events = boto3.client("events")
events.put_rule(Name="r", EventPattern='{"source": ["me"]}')
events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": arn}])
try:
    events.put_events(Entries=[{"Source": "me", "DetailType": "d", "Detail": '{"a": 1}'}])
    until(lambda: called, 3)
    print(json.dumps([json.loads(payload)["detail"] for _, payload in called]))
except NotImplementedError:
    print("not implemented")
"""


def test_a_rule_calls_a_function() -> None:
    patched = "moto_patches.patch_lambda(invoke)\nmoto_patches.patch_event_rules()\n"
    assert json.loads(run(patched + RULE)) == [{"a": 1}]


def test_moto_without_the_patch_raises_at_such_a_rule() -> None:
    assert run("moto_patches.patch_lambda(invoke)\n" + RULE) == "not implemented"


EXECUTION = """
_, role = function()
sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="q")["QueueUrl"]
events = boto3.client("events")
events.put_rule(Name="r", EventPattern='{"source": ["aws.states"], "detail": {"status": ["FAILED"]}}')
events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}])
sfn = boto3.client("stepfunctions")
definition = {"StartAt": "No", "States": {"No": {"Type": "Fail", "Error": "E", "Cause": "c"}}}
machine = sfn.create_state_machine(name="m", definition=json.dumps(definition), roleArn=role)["stateMachineArn"]
execution = sfn.start_execution(stateMachineArn=machine, name="x", input='{"job": 1}')["executionArn"]
until(lambda: sfn.describe_execution(executionArn=execution)["status"] == "FAILED")
time.sleep(1)
messages = sqs.receive_message(QueueUrl=url).get("Messages", [])
print(json.dumps([json.loads(m["Body"])["detail"] for m in messages]))
"""


def test_the_end_of_an_execution_sends_an_event() -> None:
    (detail,) = json.loads(run("moto_patches.patch_execution_events()\n" + EXECUTION))
    assert (detail["status"], detail["error"], detail["input"]) == ("FAILED", "E", '{"job": 1}')


def test_moto_without_the_patch_sends_no_event_at_the_end_of_an_execution() -> None:
    assert json.loads(run(EXECUTION)) == []


QUEUE = """
arn, _ = function()
sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="q")["QueueUrl"]
boto3.client("lambda").create_event_source_mapping(EventSourceArn="arn:aws:sqs:us-east-1:123456789012:q", FunctionName="f")
sqs.send_message(QueueUrl=url, MessageBody="hello")
print(json.dumps([len(called), len(sqs.receive_message(QueueUrl=url).get("Messages", []))]))
"""


def test_messages_stay_in_the_queue_for_the_poller() -> None:
    patched = "moto_patches.patch_lambda(invoke)\nmoto_patches.patch_queues()\n"
    assert json.loads(run(patched + QUEUE)) == [0, 1]


def test_moto_without_the_patch_invokes_the_function_while_a_message_is_sent() -> None:
    assert json.loads(run("moto_patches.patch_lambda(invoke)\n" + QUEUE)) == [1, 0]


TRANSCRIPTION = """
s3 = boto3.client("s3")
s3.create_bucket(Bucket="videos")
s3.put_object(Bucket="videos", Key="uploads/j/{clip}.mp4", Body=b"x")
transcribe = boto3.client("transcribe")
transcribe.start_transcription_job(TranscriptionJobName="n", LanguageCode="en-US", Media={{"MediaFileUri": "s3://videos/x.wav"}}, OutputBucketName="videos", OutputKey="jobs/j/t.json")
for _ in range(4):
    job = transcribe.get_transcription_job(TranscriptionJobName="n")["TranscriptionJob"]
found = s3.list_objects_v2(Bucket="videos", Prefix="jobs/").get("Contents", [])
text = json.loads(s3.get_object(Bucket="videos", Key="jobs/j/t.json")["Body"].read())["results"]["transcripts"][0]["transcript"] if found else ""
print(json.dumps([job["TranscriptionJobStatus"], text[:8], job.get("FailureReason", "")]))
"""


def test_a_transcription_is_written_from_the_reference_transcript() -> None:
    patched = "service_patches.patch_transcribe(TRUTHS)\n"
    assert json.loads(run(patched + TRANSCRIPTION.format(clip="demo"))) == ["COMPLETED", "bin blue", ""]


def test_fake_transcribe_fails_without_a_reference_transcript() -> None:
    status, text, reason = json.loads(
        run("service_patches.patch_transcribe(TRUTHS)\n" + TRANSCRIPTION.format(clip="other"))
    )
    assert (status, text) == ("FAILED", "")
    assert "fake service" in reason


def test_moto_without_the_patch_writes_no_transcript() -> None:
    assert json.loads(run(TRANSCRIPTION.format(clip="demo")))[:2] == ["COMPLETED", ""]


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
    assert run("service_patches.patch_rekognition(TRUTHS)\n" + FACES) == "10"


def test_moto_without_the_patch_detects_no_faces() -> None:
    assert run(FACES) == "not implemented"


RETRY = """
_, role = function()
sfn = boto3.client("stepfunctions")
task = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": "none"}, "End": True,
    "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 3, "MaxAttempts": 1, "BackoffRate": 2}]}
machine = sfn.create_state_machine(name="m", definition=json.dumps({"StartAt": "T", "States": {"T": task}}), roleArn=role)["stateMachineArn"]
started = time.time()
execution = sfn.start_execution(stateMachineArn=machine, name="x")["executionArn"]
until(lambda: sfn.describe_execution(executionArn=execution)["status"] == "FAILED", 30)
print(time.time() - started)
"""


def test_retry_delays_are_scaled() -> None:
    assert float(run("service_patches.patch_retry_delays(0.01)\n" + RETRY)) < 2.5


def test_moto_without_the_patch_waits_in_full() -> None:
    assert float(run(RETRY)) >= 3


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
