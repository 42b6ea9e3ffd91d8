"""``gorggle-mini-2``, the embedded model that was fine-tuned on real speakers, through the service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jiwer
import pytest

from gorggle import Client
from gorggle_evaluation.manifest import read_manifest
from tests.integration.conftest import DEMO, running_server

MODEL = "gorggle-mini-2"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_server(default_model=MODEL) as running, Client(running.address) as client:
        yield client


def test_rendered_speakers_are_still_read(client: Client, reference_sentences: list[str]) -> None:
    transcript = client.recognize(DEMO)
    assert transcript.model == MODEL
    hypothesis = " ".join(segment.text for segment in transcript.segments)
    assert jiwer.wer(" ".join(reference_sentences), hypothesis) < 0.15


def test_the_card_names_the_corpus(client: Client) -> None:
    model = client.model(MODEL)
    assert "GRID" in model.trained_on
    assert model.license.commercial_use == "permitted"


def test_words_from_the_lips_alone_are_doubtful(client: Client) -> None:
    assert not client.model(MODEL).has_open_vocabulary
    transcript = client.recognize(DEMO, modality="video")
    assert all(segment.is_doubtful for segment in transcript.segments)
    (message,) = [warning.message for warning in transcript.warnings if warning.kind == "closed_vocabulary"]
    assert message.endswith("none on this server"), "moonshine-tiny-en does not read lips"
    assert "(?)" in transcript.to_text()


@pytest.mark.skipif(
    "GORGGLE_REAL_DATA" not in os.environ, reason="GORGGLE_REAL_DATA does not name a folder of real clips"
)
def test_lips_of_real_people_are_read(client: Client) -> None:
    clips = read_manifest(Path(os.environ["GORGGLE_REAL_DATA"], "grid", "validation.jsonl")).entries[:12]
    hypotheses = [
        " ".join(segment.text for segment in client.recognize(clip.media, modality="video").segments)
        for clip in clips
    ]
    assert jiwer.wer([" ".join(clip.texts) for clip in clips], hypotheses) < 0.5
