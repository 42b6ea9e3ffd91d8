"""Held-out clips: speakers disjoint from training, and a manifest that matches the audio."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import av
import numpy as np
import pytest

from gorggle_evaluation.manifest import read_manifest
from gorggle_evaluation.media import read_audio
from gorggle_evaluation.visemes import read_lexicon
from gorggle_training import test_set
from gorggle_training.sentences import (
    DEMO_SPEAKER_SEED,
    FIRST_SPEAKER_SEED,
    VOCABULARY,
    Corpus,
    Split,
    assign_split,
)
from gorggle_training.test_set import (
    ClipPlan,
    add_arguments,
    build_manifest_entry,
    build_scene,
    plan_clips,
    run,
)

GRID_ONE = ClipPlan(Corpus.GRID, 1, 3, 2)


def test_clips_have_the_requested_number_of_sentences() -> None:
    plans = plan_clips([Corpus.GRID, Corpus.PHRASES], 10, 1)
    assert [(plan.corpus.value, plan.sentences) for plan in plans] == [
        *(("grid", count) for count in (4, 4, 2)),
        *(("phrases", count) for count in (4, 4, 2)),
    ]
    assert sum(plan.sentences for plan in plan_clips([Corpus.GRID], 500, 2)) == 500
    assert len({plan.name for plan in plans}) == 6


def test_no_speaker_is_in_two_clips_or_in_training() -> None:
    seeds = [
        seed
        for speakers in (1, 2)
        for plan in plan_clips(list(Corpus), 600, speakers)
        for seed in plan.speaker_seeds
    ]
    assert len(set(seeds)) == len(seeds)
    validation_seeds = {
        seed for plan in plan_clips(list(Corpus), 600, 2, Split.VALIDATION) for seed in plan.speaker_seeds
    }
    assert min(validation_seeds) > DEMO_SPEAKER_SEED + 100_000
    assert not validation_seeds & set(seeds)
    # Rendered test utterances use one speaker each, numbered from the first seed: far fewer than 50,000.
    assert min(seeds) > FIRST_SPEAKER_SEED[Split.TEST] + 50_000
    assert max(seeds) < DEMO_SPEAKER_SEED


def test_sentences_are_from_the_test_split_and_the_manifest_matches_the_audio() -> None:
    scene = build_scene(GRID_ONE)
    assert [assign_split(tuple(sentence.text.split())) for sentence in scene.sentences] == [Split.TEST] * 2
    entry = json.loads(json.dumps(build_manifest_entry(GRID_ONE, scene)))
    assert entry["group"] == "grid"
    assert [sentence["text"] for sentence in entry["sentences"]] == [s.text.lower() for s in scene.sentences]
    first, second = entry["sentences"]
    assert first["speaker"] == second["speaker"] == f"test-{GRID_ONE.speaker_seeds[0]}"
    assert second["start_s"] - first["end_s"] >= test_set.MIN_PAUSE_S - 0.001
    speech = np.abs(
        scene.waveform[round(first["start_s"] * 16_000) : round(first["end_s"] * 16_000)].astype(int)
    )
    pause = scene.waveform[
        round((first["end_s"] + 0.02) * 16_000) : round((second["start_s"] - 0.01) * 16_000)
    ]
    assert speech.max() > 10 * max(1, np.abs(pause.astype(int)).max())


def test_two_speakers_take_turns() -> None:
    plan = ClipPlan(Corpus.PHRASES, 2, 0, 3)
    scene = build_scene(plan)
    assert [sentence.speaker for sentence in scene.sentences] == [0, 1, 0]
    speakers = [sentence["speaker"] for sentence in build_manifest_entry(plan, scene)["sentences"]]
    assert speakers[0] == speakers[2] != speakers[1]


def test_the_command_writes_clips_and_a_valid_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(["--out", str(tmp_path / "clips"), "--sentences", "1", "--workers", "1"])
    reports: list[str] = []
    run(options, reports.append)
    path = Path(capsys.readouterr().out.strip())
    (entry,) = read_manifest(path).entries
    assert len(entry.words) == 6
    assert entry.words[0].start_s is not None
    with av.open(str(entry.media)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (640, 480, 25)
    audio = read_audio(entry.media)
    last = entry.words[-1].end_s
    assert last is not None
    assert last < len(audio.waveform) / 16_000 < last + 1.4
    assert reports == [f"{tmp_path / 'clips'}: 1 of 1 clips"]
    lexicon = read_lexicon(tmp_path / "clips" / "lexicon.tsv")
    assert set(VOCABULARY) <= set(lexicon)
    created_ns = entry.media.stat().st_mtime_ns
    run(options, reports.append)
    assert entry.media.stat().st_mtime_ns == created_ns


def test_zero_sentences_are_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit, match="whole number of 1 or more"):
        run(parser.parse_args(["--out", str(tmp_path), "--sentences", "0"]), print)
