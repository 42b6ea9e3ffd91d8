"""``gorggle evaluate`` with a scripted server, and end to end with a real one."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import grpc
import pytest

from gorggle_evaluation.__main__ import main
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.runner import show_progress
from gorggle_evaluation.transcriber import ClipResult
from tests.clips import EXAMPLES, cut_demo
from tests.evaluation.conftest import WriteManifest
from tests.sdk.fake_service import FakeLipReading, Request, Response, finished, segment, started, warning

PLOTS = {"error_rate_over_noise.png", "confusions.png", "word_times.png", "confidence.png"}


class ScriptedService:
    """Scripted responses that depend on the media, which is the clip's name as text."""

    def __init__(self, service: FakeLipReading) -> None:
        self.service = service
        self.sent: list[bytes] = []
        self.refusals: list[tuple[grpc.StatusCode, str]] = []
        self.lock = threading.Lock()
        service.script = self.respond

    def respond(self, requests: Iterator[Request], context: Any) -> Iterator[Response]:
        assert self.service.config is not None
        yield started()
        media = b"".join(request.media for request in requests)
        with self.lock:
            self.sent.append(media)
            refusal = self.refusals.pop() if self.refusals else None
        if refusal:
            context.abort(*refusal)
        if media == b"media c.mp4":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not\na video")
        if media == b"media a.mp4":
            yield segment("Bin, blue!", start_s=0.5, end_s=1.5, speaker="face-2", segment_id="1")
            yield segment("at g", start_s=2.0, end_s=3.0, speaker="face-1", segment_id="2")
            yield warning("no audio")
        else:
            yield segment("no", start_s=0.0, end_s=1.0)
        yield finished(4.0, 2)


@pytest.fixture
def scripted_service(service: FakeLipReading) -> ScriptedService:
    return ScriptedService(service)


SENTENCES = [
    {"text": "at f", "speaker": "ben", "start_s": 2.0, "end_s": 3.0},
    {
        "text": "bin blue",
        "speaker": "ann",
        "start_s": 0.5,
        "end_s": 1.5,
        "words": [
            {"text": "bin", "start_s": 0.45, "end_s": 1.0},
            {"text": "blue", "start_s": 1.0, "end_s": 1.8},
        ],
    },
]
A = {"media": "a.mp4", "sentences": SENTENCES, "group": "dialogue"}
B = {"media": "b.mp4", "text": "no thanks", "group": "talk"}
C = {"media": "c.mp4", "text": "never read"}


def load_results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (folder / "clips.jsonl").read_text().splitlines()
    return json.loads((folder / "results.json").read_text()), [json.loads(line) for line in lines]


@pytest.mark.usefixtures("scripted_service")
def test_all_metrics_are_reported(
    write_manifest: WriteManifest, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = write_manifest(A, B), tmp_path / "new" / "out"
    assert main([str(manifest), "--server", target, "--modality", "av", "--out", str(out)]) == 0
    document, clips = load_results(out)
    (condition,) = document["conditions"]
    assert condition["name"] == "audio-visual, clean"
    words = condition["words"]
    assert (words["substitutions"], words["insertions"], words["deletions"]) == (1, 0, 1)
    assert (words["words"], words["clips"], words["rate"]) == (6, 2, pytest.approx(2 / 6, abs=1e-6))
    assert words["interval"][0] <= words["rate"] <= words["interval"][1]
    assert condition["groups"]["dialogue"]["rate"] == 0.25
    assert condition["groups"]["talk"]["rate"] == 0.5
    assert condition["times"]["words"] == 2
    assert condition["times"]["median_start_ms"] == 25
    assert condition["times"]["mean_end_ms"] == 150
    assert condition["times"]["words_within_100_ms"] == 0.5
    assert (condition["confidence"]["words"], condition["confidence"]["share_correct"]) == (5, 0.8)
    assert (condition["speakers"]["share_of_recognized"], condition["speakers"]["words"]) == (1.0, 4)
    assert condition["confusions"]["words"] == [{"reference": "f", "hypothesis": "g", "count": 1}]
    assert condition["confusions"]["visemes"] is None
    assert condition["media_s"] == 8.0
    assert condition["real_time_factor"] == pytest.approx(condition["elapsed_s"] / 8, abs=1e-3)
    assert condition["failures"] == []
    assert condition["warnings"] == {"no audio": 1}
    assert document["model"]["name"] == "grid"
    assert document["model"]["sha256"] == "ab" * 32
    assert document["command"][:3] == ["gorggle", "evaluate", str(manifest)]
    assert document["plots"] == ["confusions.png", "word_times.png", "confidence.png"]
    first, second = clips
    assert (first["reference"], first["hypothesis"]) == ("bin blue at f", "bin blue at g")
    assert first["errors"] == [{"reference": "f", "hypothesis": "g"}]
    assert second["errors"] == [{"reference": "thanks", "hypothesis": None}]
    assert first["segments"][0]["speaker"] == "face-2"
    output = capsys.readouterr()
    assert "33.3 %" in output.out
    assert "audio-visual, clean: talk" in output.out
    assert "no audio (audio-visual, clean, 1 clip)" in output.out
    assert output.err == ""


@pytest.mark.usefixtures("scripted_service")
def test_a_failed_clip_counts_all_words_as_deleted_and_sets_exit_code_1(
    write_manifest: WriteManifest, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(C, B)
    assert main([str(manifest), "--server", target, "--modality", "video", "--out", str(tmp_path)]) == 1
    document, clips = load_results(tmp_path)
    (condition,) = document["conditions"]
    assert condition["failures"] == [{"id": "c.mp4", "error": "InvalidRequestError: not a video"}]
    assert (condition["words"]["deletions"], condition["words"]["words"]) == (3, 4)
    assert (clips[0]["deletions"], clips[0]["error"]) == (2, "InvalidRequestError: not a video")
    assert "c.mp4 (video only, clean): InvalidRequestError: not a video" in capsys.readouterr().out


def test_noise_is_only_added_to_modalities_with_audio(
    write_manifest: WriteManifest,
    target: str,
    tmp_path: Path,
    scripted_service: ScriptedService,
    tones: list[Entry],
) -> None:
    manifest = write_manifest(*({"media": entry.media.name, "text": "no"} for entry in tones[:2]))
    options = ["--server", target, "--noise", "white", "--snr", "0", "10", "--out", str(tmp_path)]
    assert main([str(manifest), *options, "--limit", "1"]) == 0
    first_run, scripted_service.sent = sorted(scripted_service.sent), []
    document, clips = load_results(tmp_path)
    assert [(c["modality"], c["noise"], c["snr_db"]) for c in document["conditions"]] == [
        ("av", None, None),
        ("video", None, None),
        ("audio", None, None),
        ("av", "white", 0.0),
        ("audio", "white", 0.0),
        ("av", "white", 10.0),
        ("audio", "white", 10.0),
    ]
    assert len(clips) == len(first_run) == 7
    assert document["plots"] == ["error_rate_over_noise.png", "confidence.png"]
    # The clean file is sent three times, each noisy one twice (audio-visual and audio only).
    assert sorted(first_run.count(media) for media in set(first_run)) == [2, 2, 3]
    noisy = next(media for media in first_run if first_run.count(media) == 2)
    with av.open(io.BytesIO(noisy)) as container:
        assert "matroska" in container.format.name
    assert main([str(manifest), *options, "--limit", "1"]) == 0
    assert sorted(scripted_service.sent) == first_run
    scripted_service.sent = []
    assert main([str(manifest), *options, "--limit", "1", "--seed", "5"]) == 0
    assert set(scripted_service.sent) & set(first_run) == {tones[0].media.read_bytes()}


def test_an_overloaded_server_is_retried(
    write_manifest: WriteManifest, target: str, scripted_service: ScriptedService
) -> None:
    scripted_service.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "all slots are in use")]
    assert main([str(write_manifest(B)), "--server", target, "--modality", "audio"]) == 0
    assert len(scripted_service.sent) == 2


def test_clips_are_transcribed_in_parallel_and_reported_in_order(
    write_manifest: WriteManifest, target: str, tmp_path: Path, scripted_service: ScriptedService
) -> None:
    manifest = write_manifest(*({**B, "id": f"clip {number}"} for number in range(12)))
    barrier = threading.Barrier(4, timeout=20)
    respond = scripted_service.respond

    def respond_after_barrier(requests: Iterator[Request], context: Any) -> Iterator[Response]:
        yield started()
        barrier.wait()
        yield from list(respond(requests, context))[1:]

    scripted_service.service.script = respond_after_barrier
    options = ["--server", target, "--modality", "av", "--jobs", "4", "--out", str(tmp_path)]
    assert main([str(manifest), *options]) == 0
    assert [clip["id"] for clip in load_results(tmp_path)[1]] == [f"clip {number}" for number in range(12)]


@pytest.mark.usefixtures("scripted_service")
def test_a_lexicon_adds_viseme_confusions(write_manifest: WriteManifest, target: str, tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("f\tɛ f\ng\tdʒ iː\nbin\tb ɪ n\n")
    options = ["--server", target, "--modality", "av", "--out", str(tmp_path)]
    assert main([str(write_manifest(A)), *options, "--lexicon", str(tmp_path / "words.tsv")]) == 0
    document, _ = load_results(tmp_path)
    visemes = document["conditions"][0]["confusions"]["visemes"]
    assert {pair["reference"] for pair in visemes["counts"]} >= {"f v"}
    assert visemes["reference_counts"]["p b m"] == 1
    assert "confusions.png" in document["plots"]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--snr", "0"], 2, "--snr requires --noise"),
        (["--tls"], 2, "--tls needs --server"),
        (["--seed", "-1"], 2, "expected a whole number of 0 or more"),
        (["--noise", "pink"], 2, "invalid choice"),
        (["--noise", "white", "--snr", "loud"], 2, "'loud' is not a number of decibels"),
        (["--jobs", "0"], 2, "'0' is not a whole number of 1 or more"),
        (["--lexicon", "none.tsv"], 1, "none.tsv cannot be read"),
        (["--server", "127.0.0.1:1"], 1, "127.0.0.1:1"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    write_manifest: WriteManifest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    monkeypatch.setattr("gorggle_evaluation.__main__.READY_TIMEOUT_S", 0.5)
    try:
        exit_code = main([str(write_manifest(B)), *arguments])
    except SystemExit as exit_error:
        exit_code = int(exit_error.code or 0)
    assert exit_code == code
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert expected in last_line


@pytest.mark.usefixtures("scripted_service")
def test_an_unknown_model_is_reported_before_the_first_clip(
    write_manifest: WriteManifest, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write_manifest(B)), "--server", target, "--model", "huge"]) == 1
    assert capsys.readouterr().err == "gorggle: there is no model huge\n"


def test_an_invalid_manifest_is_reported_in_one_line(
    write_manifest: WriteManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(B, {"media": "gone.mp4", "text": "x"})
    assert main([str(manifest)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"gorggle: {manifest}:2: media 'gone.mp4' does not exist")
    assert message.count("\n") == 1


def test_an_unusable_output_folder_is_refused_before_the_run(
    write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(write_manifest(B)), "--out", str(tmp_path / "a.mp4")])
    assert "cannot be created: file exists" in capsys.readouterr().err


def test_ctrl_c_cancels_running_transcriptions(
    write_manifest: WriteManifest, target: str, service: FakeLipReading, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, cancelled = threading.Event(), threading.Event()

    def slow_script(requests: Iterator[Request], context: Any) -> Iterator[Response]:
        yield started()
        if next(requests).media == b"media b.mp4":
            assert context.add_callback(cancelled.set)
            blocked.set()
            cancelled.wait(30)
            return
        assert blocked.wait(20)
        yield finished()

    def raise_interrupt(self: Any, text: str) -> None:
        raise KeyboardInterrupt

    service.script = slow_script
    monkeypatch.setattr("gorggle.cli.progress.ProgressLine.set_message", raise_interrupt)
    manifest = write_manifest(A, B)
    assert main([str(manifest), "--server", target, "--modality", "av", "--jobs", "2"]) == 130
    assert cancelled.wait(10)


@pytest.mark.parametrize("package", ["jiwer", "matplotlib", "av"])
def test_missing_packages_are_reported_with_the_install_command(
    write_manifest: WriteManifest, tmp_path: Path, package: str
) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from gorggle.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "evaluate", str(write_manifest(B)), "--out", str(tmp_path)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 1
    assert completed.stderr.startswith(
        "gorggle: the evaluation is not installed: pip install 'gorggle[evaluation]' "
        f"(no module named {package}"
    )
    assert completed.stderr.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with show_progress(4, stream) as report:
            report(ClipResult(None, None, error="x"))  # type: ignore[arg-type]
    assert "1/4" in terminal.getvalue()
    assert "1 failed" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert pipe.getvalue() == ""


def test_end_to_end_on_a_real_server_with_the_embedded_model(tmp_path: Path) -> None:
    demo = cut_demo(tmp_path, sentence_count=3)
    references = {
        str(clip): json.loads(clip.with_suffix(".json").read_text())
        for clip in (demo, EXAMPLES / "two_speakers.mp4")
    }
    (tmp_path / "broken.mp4").write_text("no video")
    lines = [{"media": clip, "sentences": reference["sentences"]} for clip, reference in references.items()]
    lines.append({"media": "broken.mp4", "text": "nothing at all"})
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    command = [
        sys.executable,
        "-m",
        "gorggle",
        "evaluate",
        "manifest.jsonl",
        "--modality",
        "av",
        "--jobs",
        "2",
    ]
    command += ["--noise", "babble", "--snr", "10", "--out", "out"]
    completed = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert completed.returncode == 1, completed.stderr
    document, clips = load_results(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results.json",
        "clips.jsonl",
        *document["plots"],
    }
    assert {"error_rate_over_noise.png", "word_times.png"} <= set(document["plots"]) <= PLOTS
    clean, noisy = document["conditions"]
    words_total = sum(
        len(sentence["words"]) for reference in references.values() for sentence in reference["sentences"]
    )
    for condition in (clean, noisy):
        condition_clips = [clip for clip in clips if clip["noise"] == condition["noise"]]
        words = condition["words"]
        assert words["words"] == sum(clip["words"] for clip in condition_clips) == words_total + 3
        for kind in ("substitutions", "insertions", "deletions"):
            assert words[kind] == sum(clip[kind] for clip in condition_clips)
        assert [failure["id"] for failure in condition["failures"]] == ["broken.mp4"]
        assert condition["media_s"] == pytest.approx(
            sum(t["duration_s"] for t in references.values()), abs=0.2
        )
    assert clean["words"]["deletions"] >= 3
    assert clean["words"]["rate"] < 0.3
    assert (noisy["noise"], noisy["snr_db"]) == ("babble", 10.0)
    assert clean["times"]["median_start_ms"] < 60
    assert clean["speakers"]["share_of_recognized"] > 0.9
    assert "audio-visual, babble at 10 dB" in completed.stdout
    assert "broken.mp4 (audio-visual, clean): InvalidRequestError" in completed.stdout
    assert completed.stderr == ""
