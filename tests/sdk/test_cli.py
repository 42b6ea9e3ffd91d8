"""Command line in a subprocess: output, error messages and exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from gorggle.cli.main import main
from tests.sdk import fake_service
from tests.sdk.conftest import MakeServer
from tests.sdk.fake_service import FakeLipReading

# Processes started from a background shell ignore SIGINT: restore Python's handler.
WITH_SIGINT = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from gorggle.cli.main import main
sys.exit(main())
"""
LINE = "[00:00.52 - 00:02.10] Person 1: bin blue at f two now\n"
MODEL_LINE = "gorggle: model: grid\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create some media files in a new working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GORGGLE_TOKEN", raising=False)
    for name in ("a.mp4", "b.webm", "bad.mp4"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return tmp_path


def run_gorggle(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gorggle", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **{"stdin": subprocess.DEVNULL, **options} if "input" not in options else options,
    )


def transcribe(target: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_gorggle("transcribe", *arguments, "--server", target, **options)


def return_file_names(service: FakeLipReading) -> None:
    """Make the server return the name that each file contains, and refuse bad.mp4."""

    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.media_info()
        content = b"".join(request.media for request in requests)
        name = content[: len(content) // 1000].decode()
        if name == "bad.mp4":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "invalid video:\nsend MP4, WebM or Matroska")
        yield fake_service.segment(f"text of {name}")
        yield fake_service.finished(3.0)

    service.script = script


# ----------------------------------------------------------------------------------------------------------- formats


def test_text_is_written_to_standard_output(folder: Path, target: str) -> None:
    completed = transcribe(target, "a.mp4")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, LINE, MODEL_LINE)


def test_json_has_the_documented_fields(folder: Path, target: str) -> None:
    completed = transcribe(target, "a.mp4", "--format", "json")
    assert (completed.returncode, completed.stderr) == (0, MODEL_LINE)
    document = json.loads(completed.stdout)
    assert list(document) == ["file", "duration", "model", "audio_model", "segments"]
    assert (document["file"], document["duration"], document["model"]) == ("a.mp4", 3.0, "grid")
    [segment] = document["segments"]
    assert list(segment) == ["start", "end", "text", "speaker", "confidence", "doubtful", "words"]
    assert list(segment["words"][0]) == ["start", "end", "text", "confidence", "source"]
    assert (segment["start"], segment["end"]) == (0.52, 2.1)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("srt", "1\n00:00:00,520 --> 00:00:02,100\nbin blue at f two now\n"),
        ("vtt", "WEBVTT\n\n1\n00:00:00.520 --> 00:00:02.100\n<v Person 1>bin blue at f two now\n"),
    ],
)
def test_captions_are_written_to_standard_output(folder: Path, target: str, form: str, expected: str) -> None:
    completed = transcribe(target, "a.mp4", "--format", form)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, expected, MODEL_LINE)


def test_a_second_model_is_selected_and_named(folder: Path, service: FakeLipReading, target: str) -> None:
    completed = transcribe(target, "a.mp4", "--audio-model", "speech", "--format", "json")
    assert completed.returncode == 0
    assert completed.stderr == "gorggle: model: grid, with speech\n"
    assert service.config is not None
    assert service.config.recognition.audio_model == "speech"
    assert json.loads(completed.stdout)["audio_model"] == "speech"


def test_options_reach_the_server(folder: Path, service: FakeLipReading, target: str) -> None:
    options = [
        "--modality",
        "video",
        "--model",
        "large",
        "--beam-size",
        "7",
        "--max-speakers",
        "2",
        "--interim-results",
        "--start-offset",
        "60.5",
    ]
    assert transcribe(target, "a.mp4", *options).returncode == 0
    assert service.config is not None
    config = service.config.recognition
    assert (config.modality, config.model, config.beam_size, config.max_speakers) == (2, "large", 7, 2)
    assert config.start_offset.ToMilliseconds() == 60_500
    assert service.config.interim_results


def test_segments_are_printed_as_they_arrive(folder: Path, service: FakeLipReading, target: str) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.segment("early")
        for _ in requests:
            pass
        yield fake_service.finished()

    service.script = script
    command = [sys.executable, "-m", "gorggle", "transcribe", "-", "--server", target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"media")
        process.stdin.flush()
        assert process.stdout.readline() == b"[00:00.52 - 00:02.10] Person 1: early\n", (
            "the segment must be printed before the end of input"
        )
        process.stdin.close()
        assert process.wait(20) == 0


def test_standard_input_is_read(folder: Path, service: FakeLipReading, target: str) -> None:
    completed = transcribe(target, "-", "--format", "json", input="media from a pipe")
    assert (completed.returncode, completed.stderr) == (0, MODEL_LINE)
    assert json.loads(completed.stdout)["file"] == "-"
    assert service.media == b"media from a pipe"


def test_interim_results_and_warnings_are_written_to_standard_error(
    folder: Path, service: FakeLipReading, target: str
) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        for _ in requests:
            pass
        yield fake_service.warning("there is no audio:\nusing the video alone")
        yield fake_service.segment("bin", is_final=False)
        yield fake_service.segment()
        yield fake_service.finished()

    service.script = script
    completed = transcribe(target, "a.mp4", "--interim-results")
    assert (completed.returncode, completed.stdout) == (0, LINE)
    assert completed.stderr.splitlines() == [
        "gorggle: model: grid",
        "gorggle: a.mp4: warning: there is no audio: using the video alone",
        "[00:00.52 - 00:02.10] Person 1: bin …",
    ]


def test_a_file_without_speech_succeeds(folder: Path, service: FakeLipReading, target: str) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        for _ in requests:
            pass
        yield fake_service.finished()

    service.script = script
    assert transcribe(target, "a.mp4").stdout == ""
    assert transcribe(target, "a.mp4", "--format", "vtt").stdout == "WEBVTT\n"
    assert json.loads(transcribe(target, "a.mp4", "--format", "json").stdout)["segments"] == []


# ----------------------------------------------------------------------------------------------------- several files


def test_several_files_have_headers(folder: Path, service: FakeLipReading, target: str) -> None:
    return_file_names(service)
    completed = transcribe(target, "a.mp4", "b.webm")
    assert completed.returncode == 0
    assert completed.stdout.splitlines() == [
        "==> a.mp4 <==",
        "[00:00.52 - 00:02.10] Person 1: text of a.mp4",
        "==> b.webm <==",
        "[00:00.52 - 00:02.10] Person 1: text of b.webm",
    ]


def test_several_files_are_one_json_object_per_line(
    folder: Path, service: FakeLipReading, target: str
) -> None:
    return_file_names(service)
    completed = transcribe(target, "a.mp4", "b.webm", "--format", "json")
    documents = [json.loads(line) for line in completed.stdout.splitlines()]
    assert [document["file"] for document in documents] == ["a.mp4", "b.webm"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failed_file_does_not_stop_the_others(
    folder: Path, service: FakeLipReading, target: str, form: str
) -> None:
    return_file_names(service)
    (folder / "empty.mp4").touch()
    files = ["nowhere.mp4", "bad.mp4", ".", "empty.mp4", "a.mp4"]
    completed = transcribe(target, *files, "--format", form)
    assert completed.returncode == 1
    assert "text of a.mp4" in completed.stdout
    assert completed.stderr.splitlines() == [
        "gorggle: nowhere.mp4: does not exist",
        "gorggle: model: grid",
        "gorggle: bad.mp4: invalid video: send MP4, WebM or Matroska",
        "gorggle: .: is a directory: give the path of a media file",
        "gorggle: empty.mp4: is empty: give a media file",
    ]


# ------------------------------------------------------------------------------------------------------------- output


def test_output_is_written_to_a_file(folder: Path, target: str) -> None:
    completed = transcribe(target, "a.mp4", "--format", "srt", "--output", "captions.srt")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", MODEL_LINE)
    assert Path("captions.srt").read_text().startswith("1\n00:00:00,520 --> ")
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4", "b.webm", "bad.mp4", "captions.srt"]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.srt", "1\n00:00:00,520"), ("a.VTT", "WEBVTT"), ("a.json", "{"), ("a.txt", LINE), ("a.log", LINE)],
)
def test_the_format_follows_the_extension_of_the_output(
    folder: Path, target: str, name: str, start: str
) -> None:
    assert transcribe(target, "a.mp4", "--output", name).returncode == 0
    assert Path(name).read_text().startswith(start)


@pytest.mark.parametrize("output", ["a.mp4", "../{folder}/a.mp4"])
def test_an_output_that_would_overwrite_the_input_is_refused(folder: Path, target: str, output: str) -> None:
    completed = transcribe(target, "a.mp4", "--output", output.format(folder=folder.name))
    assert (completed.returncode, completed.stdout) == (2, "")
    assert (
        "would overwrite the input a" in completed.stderr
        or "would overwrite the input .." in completed.stderr
    )
    assert Path("a.mp4").read_bytes() == b"a.mp4" * 1000


def test_several_outputs_are_written_into_a_folder(
    folder: Path, service: FakeLipReading, target: str
) -> None:
    return_file_names(service)
    completed = transcribe(
        target, "a.mp4", "bad.mp4", "b.webm", "--format", "vtt", "--output", "new/captions"
    )
    assert (completed.returncode, completed.stdout) == (1, "")
    assert sorted(path.name for path in Path("new/captions").iterdir()) == ["a.vtt", "b.vtt"]
    assert "text of b.webm" in Path("new/captions/b.vtt").read_text()


def test_an_output_is_not_changed_by_a_failure(folder: Path, service: FakeLipReading, target: str) -> None:
    return_file_names(service)
    Path("kept.txt").write_text("from before")
    assert transcribe(target, "bad.mp4", "--output", "kept.txt").returncode == 1
    assert Path("kept.txt").read_text() == "from before"


def test_the_output_can_be_a_device(folder: Path, target: str) -> None:
    completed = transcribe(target, "a.mp4", "--output", "/dev/stderr")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", MODEL_LINE + LINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "--format", "docx"], "invalid choice: 'docx'"),
        (["a.mp4", "--modality", "ears"], "invalid choice: 'ears'"),
        ([], "required: FILE"),
        (["a.mp4", "b.webm", "--format", "srt"], "--output"),
        (["a.mp4", "b.webm", "--output", "bad.mp4"], "bad.mp4 is a file"),
        (["a.mp4", "--output", "nowhere/a.txt"], "nowhere is not a folder"),
        (["a.mp4", "--beam-size", "0"], "'0' is not a whole number of at least 1"),
        (["a.mp4", "--beam-size", "wide"], "'wide' is not a whole number"),
        (["a.mp4", "--start-offset", "-1"], "'-1' is not a number of seconds"),
        (["a.mp4", "--start-offset", "nan"], "'nan' is not a number of seconds"),
        (["a.mp4", "--cert", "c.pem"], "--cert and --key must be used together"),
    ],
)
def test_invalid_arguments_exit_with_code_2(
    folder: Path, target: str, arguments: Sequence[str], message: str
) -> None:
    completed = run_gorggle("transcribe", *arguments, "--server", target)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr


def test_server_options_require_a_server(folder: Path) -> None:
    completed = run_gorggle("transcribe", "a.mp4", "--token-file", "a.mp4")
    assert (completed.returncode, completed.stderr) == (
        2,
        "gorggle transcribe: error: --token-file needs --server\n",
    )


# ---------------------------------------------------------------------------------------- interruptions and errors


def endless_responses(requests: Any, context: Any) -> Iterator[fake_service.Response]:
    yield fake_service.started()
    while context.is_active():
        yield fake_service.segment("on and on")
        time.sleep(0.01)


def test_a_closed_output_pipe_ends_the_command_without_a_message(
    folder: Path, service: FakeLipReading, target: str
) -> None:
    service.script = endless_responses
    command = [sys.executable, "-m", "gorggle", "transcribe", "a.mp4", "--server", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == MODEL_LINE.encode()
    assert service.ended.wait(5)


@pytest.mark.parametrize("source", ["a.mp4", "-"])
def test_ctrl_c_ends_the_command_without_a_traceback(
    folder: Path, service: FakeLipReading, target: str, source: str
) -> None:
    service.script = endless_responses
    command = [sys.executable, "-c", WITH_SIGINT, "transcribe", source, "--server", target]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == MODEL_LINE.encode()
    assert service.ended.wait(5)


def test_an_unreachable_server_is_named_in_the_error(folder: Path) -> None:
    completed = run_gorggle("transcribe", "a.mp4", "--server", "127.0.0.1:1")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert re.fullmatch(r"gorggle: a.mp4: no connection to 127.0.0.1:1: .*\n", completed.stderr)


def test_the_next_server_is_used_if_one_is_unreachable(
    folder: Path, service: FakeLipReading, target: str
) -> None:
    return_file_names(service)
    completed = run_gorggle("transcribe", "a.mp4", "--server", f"127.0.0.1:1,{target}")
    assert (completed.returncode, completed.stderr.count("\n")) == (0, 2), completed.stderr
    assert "text of a.mp4" in completed.stdout
    assert "127.0.0.1:1" in completed.stderr
    assert "resuming from 0.0 s" in completed.stderr


def test_an_invalid_address_is_reported_once(folder: Path) -> None:
    completed = run_gorggle("transcribe", "a.mp4", "b.webm", "--server", "somewhere")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert (
        completed.stderr == "gorggle: 'somewhere' is not an address: use HOST:PORT, such as 127.0.0.1:50051\n"
    )


# -------------------------------------------------------------------------------------------------------------- token


def test_a_token_is_read_from_a_file_or_the_environment(
    folder: Path, service: FakeLipReading, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("token").write_text("from-a-file\n")
    assert transcribe(target, "a.mp4", "--token-file", "token").returncode == 0
    assert service.metadata["authorization"] == "Bearer from-a-file"
    monkeypatch.setenv("GORGGLE_TOKEN", "from-the-environment")
    assert transcribe(target, "a.mp4").returncode == 0
    assert service.metadata["authorization"] == "Bearer from-the-environment"


def test_a_token_is_never_sent_unencrypted_or_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GORGGLE_TOKEN", "very-secret")
    completed = run_gorggle("transcribe", "a.mp4", "--server", "192.0.2.1:50051")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == "gorggle: the token would be sent to 192.0.2.1:50051 unencrypted: use TLS\n"


def test_a_missing_token_file_is_reported(folder: Path, target: str) -> None:
    completed = transcribe(target, "a.mp4", "--token-file", "nowhere")
    assert completed.returncode == 1
    assert "cannot read the token file nowhere" in completed.stderr


# ----------------------------------------------------------------------------------------------------------- progress


def test_progress_is_drawn_on_a_terminal_and_cleared(
    folder: Path, service: FakeLipReading, target: str
) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.media_info(4.0)
        for _ in requests:
            pass
        for done_s in range(1, 4):
            time.sleep(0.15)
            yield fake_service.progress(4, done_s)
        yield fake_service.segment()
        yield fake_service.finished()

    service.script = script
    (folder / "a.mp4").write_bytes(bytes(300_000))
    terminal, child_terminal = pty.openpty()
    command = [sys.executable, "-m", "gorggle", "transcribe", "a.mp4", "--server", target]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child_terminal, env=environment) as process:
        os.close(child_terminal)
        output = b""
        while chunk := _read_terminal(terminal):
            output += chunk
        assert process.stdout
        assert process.stdout.read() == LINE.encode()
        assert process.wait(20) == 0
    os.close(terminal)
    assert b"50%  0.3 MB sent" in output
    assert b"00:02 transcribed of 00:04" in output
    assert output.endswith(b"\r\x1b[K"), "the progress line must be cleared at the end"


def _read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # on Linux, EIO: the other side is closed
        return b""


# ------------------------------------------------------------------------------------------------------ other commands


def test_models_show_their_licences(target: str) -> None:
    completed = run_gorggle("models", "--server", target)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert "commercial use:  FORBIDDEN" in completed.stdout
    assert "36.5 % on held-out speakers (video, clean; make evaluate)" in completed.stdout
    assert [line for line in completed.stdout.splitlines() if line and not line.startswith(" ")] == [
        "grid",
        "large",
    ]


def test_models_are_written_as_json(target: str) -> None:
    completed = run_gorggle("models", "--server", target, "--json")
    models = json.loads(completed.stdout)
    assert [model["name"] for model in models] == ["grid", "large"]
    assert models[0]["license"]["commercial_use"] == "forbidden"


def test_the_version_is_printed() -> None:
    completed = run_gorggle("--version")
    assert completed.returncode == 0
    assert re.fullmatch(r"gorggle \d+\.\d+\.\d+\S*\n", completed.stdout)


@pytest.mark.parametrize("command", [[], ["transcribe"], ["models"], ["model"]])
def test_every_command_has_help_with_examples(command: list[str]) -> None:
    completed = run_gorggle(*command, "--help")
    assert (completed.returncode, completed.stderr) == (0, "")
    assert "examples:" in completed.stdout
    assert max(map(len, completed.stdout.splitlines())) <= 110


@pytest.mark.parametrize("arguments", [[], ["transmogrify"], ["transcribe", "--wrong"]])
def test_a_missing_or_unknown_command_exits_with_code_2(arguments: list[str]) -> None:
    completed = run_gorggle(*arguments)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert "usage: gorggle" in completed.stderr


def test_tls_options_reach_the_connection(folder: Path, make_server: MakeServer) -> None:
    from tests.sdk.test_channel import CertificateAuthority, server_credentials

    authority = CertificateAuthority()
    _, port = make_server(server_credentials(authority, "gorggle.internal", mutual=True))
    certificate, key = authority.issue("client")
    for name, content in (("ca.pem", authority.pem), ("cert.pem", certificate), ("key.pem", key)):
        Path(name).write_bytes(content)
    options = [
        "--ca",
        "ca.pem",
        "--cert",
        "cert.pem",
        "--key",
        "key.pem",
        "--server-name",
        "gorggle.internal",
    ]
    completed = transcribe(f"127.0.0.1:{port}", "a.mp4", *options)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, LINE, MODEL_LINE)


def test_grpc_logs_errors_only_unless_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in ((None, "ERROR"), ("debug", "debug")):
        with monkeypatch.context() as patch:
            # Set it first, so that monkeypatch restores the variable that main() changes.
            patch.setenv("GRPC_VERBOSITY", value or "")
            if value is None:
                patch.delenv("GRPC_VERBOSITY")
            assert main(["model", "--help"]) == 0
            assert os.environ["GRPC_VERBOSITY"] == expected
