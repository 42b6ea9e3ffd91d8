"""Fine-tuning on recorded clips: cropping, caching, rejections, a short run and the command's errors."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gorggle_server.avhubert import ModelConfig, load_model, save_model
from gorggle_server.avhubert.config import PAD
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.errors import ModelFormatError, NotFoundError
from gorggle_server.vision.landmark_model import LandmarkModelName
from gorggle_training import train_command
from gorggle_training.clip_shards import prepare_clips, read_utterance
from gorggle_training.clips import write_clip
from gorggle_training.dataset import BatchStream
from gorggle_training.fine_tuning import MODEL_FILE, load_base_model
from gorggle_training.labelled_clips import LabelledClip, read_manifest_clips
from gorggle_training.loss import TrainingLoss
from gorggle_training.sentences import Split
from gorggle_training.shards import MixedStore, ShardFolder, UtteranceStore, write_shard
from gorggle_training.tokenizer import train_tokenizer
from gorggle_training.train import MIN_FRONTEND_CHANNELS
from tests.clips import cut_demo, transcode

SENTENCE = "bin blue at f two now"


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of the demo clip's first sentence, with and without word times."""
    folder = tmp_path_factory.mktemp("clips")
    clip = cut_demo(folder, 1)
    (sentence,) = json.loads(clip.with_suffix(".json").read_text())["sentences"]
    timed = {"media": clip.name, "id": "timed", "text": sentence["text"], "words": sentence["words"]}
    untimed = {"media": clip.name, "id": "untimed", "text": sentence["text"]}
    path = folder / "clips.jsonl"
    path.write_text(f"{json.dumps(timed)}\n{json.dumps(untimed)}\n")
    return path


@pytest.fixture(scope="module")
def clips(manifest: Path) -> list[LabelledClip]:
    return [clip for clip in read_manifest_clips(manifest) if isinstance(clip, LabelledClip)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def recorded(clips: list[LabelledClip], cache: Path) -> ShardFolder:
    store, rejected = prepare_clips(clips, cache, 1, lambda _: None)
    assert rejected == []
    return store


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    write_shard(folder, Split.TRAIN, 0, 3)
    return folder


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer()
    config = ModelConfig(
        encoder_layers=1,
        encoder_dim=32,
        encoder_ffn_dim=64,
        encoder_heads=2,
        decoder_layers=1,
        decoder_dim=32,
        decoder_ffn_dim=64,
        decoder_heads=2,
        vocabulary_size=len(tokenizer),
        frontend_channels=MIN_FRONTEND_CHANNELS,
        position_kernel_size=8,
        position_groups=4,
        max_target_size=64,
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    network = AVHubertNetwork(config)
    card = {"name": "tiny", "license": {"name": "MIT", "summary": "Free."}, "trained_on": "nothing"}
    save_model(network, config, tokenizer.tokens, tokenizer.sentencepiece_model, card, path)
    return path


def test_a_recorded_clip_becomes_an_utterance(recorded: ShardFolder) -> None:
    utterance = recorded[0]
    assert utterance.text == SENTENCE
    assert utterance.is_recorded
    assert utterance.has_word_times
    assert not recorded[1].has_word_times
    assert len(utterance.waveform) == utterance.frames * 640
    begin, end = (
        round(time_s * 16_000) for time_s in (utterance.words[0].start_s, utterance.words[-1].end_s)
    )
    assert np.abs(utterance.waveform[begin:end]).max() > 10 * np.abs(utterance.waveform[: begin // 2]).max()
    # The mouth moves while the words are spoken.
    changes = np.abs(np.diff(utterance.crops[:, 30:66, 30:66].astype(int), axis=0)).mean(axis=(1, 2))
    speaking = slice(begin // 640, end // 640)
    assert changes[speaking].mean() > 1.5 * changes[: begin // 640 - 3].mean()


def test_cropped_clips_are_cached_until_their_words_change(
    recorded: ShardFolder, clips: list[LabelledClip], cache: Path
) -> None:
    (folder,) = cache.iterdir()
    written = (folder / "00000" / "crops.npy").stat().st_mtime_ns
    again, _ = prepare_clips(clips, cache, 1, lambda _: None)
    assert len(again) == len(recorded) == 2
    assert (folder / "00000" / "crops.npy").stat().st_mtime_ns == written
    corrected = [replace(clips[0], words=clips[0].words[:-1])]
    changed, _ = prepare_clips(corrected, cache, 1, lambda _: None)
    assert changed[0].text == "bin blue at f two"


def test_clips_are_cropped_again_with_another_landmark_model(
    recorded: ShardFolder, clips: list[LabelledClip], tmp_path: Path
) -> None:
    dlib, _ = prepare_clips(clips[:1], tmp_path, 1, lambda _: None)
    mesh, _ = prepare_clips(clips[:1], tmp_path, 1, lambda _: None, LandmarkModelName.MEDIAPIPE)
    assert len(list(tmp_path.iterdir())) == 2
    difference = np.abs(dlib[0].crops.astype(int) - mesh[0].crops)
    assert 0 < difference.mean() < 8


def test_unusable_clips_are_left_out_with_a_reason(clips: list[LabelledClip], tmp_path: Path) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    write_clip(tmp_path / "faceless.mp4", [black] * 10, np.zeros(6400, np.int16))
    transcode(clips[0].media, tmp_path / "silent.mp4", audio_codec=None, max_s=0.4)
    (tmp_path / "text.mp4").write_text("no media")

    unusable = [LabelledClip(path, clips[0].words) for path in sorted(tmp_path.glob("*.mp4"))]
    store, rejected = prepare_clips(unusable, tmp_path / "cache", 1, lambda _: None)
    reasons = {clip.media.stem: clip.reason for clip in rejected}
    assert len(store) == 0
    assert reasons["faceless"] == "a face was found in 0 of 10 frames; expected at least 80%"
    assert reasons["silent"] == "it has no audio"
    assert "text" in reasons


def test_words_after_the_end_of_a_clip_are_refused(clips: list[LabelledClip]) -> None:
    late = replace(clips[0].words[-1], start_s=30.0, end_s=31.0)
    with pytest.raises(ValueError, match="words begin after its end"):
        read_utterance(replace(clips[0], words=(*clips[0].words, late)))


def test_unknown_word_times_and_mouth_parameters_do_not_enter_the_loss(
    recorded: ShardFolder, tiny_model: Path
) -> None:
    model = load_model(tiny_model)
    batch = BatchStream(recorded, model.vocabulary, 640, 0).make_batch([1])
    assert batch.frame_tokens.eq(PAD).all()
    assert not batch.attention.any()
    assert batch.motion[~batch.padding_mask].isnan().all()
    loss, parts = TrainingLoss(model.network.requires_grad_(True), batch.motion.shape[2])(batch)
    assert parts["motion"] == parts["attention"] == parts["frame tokens"] == 0
    loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.network.parameters())


def test_an_epoch_mixes_recorded_and_rendered_utterances_in_the_given_ratio(
    recorded: ShardFolder, rendered: Path
) -> None:
    mixed = MixedStore(recorded, UtteranceStore(rendered, Split.TRAIN), recorded_share=0.25)
    assert len(mixed) == len(mixed.frames) == 5
    epoch = mixed.draw_epoch(np.random.default_rng(0))
    assert sorted(index for index in epoch if mixed[index].is_recorded) == [0, 1]
    assert sum(not mixed[index].is_recorded for index in epoch) == 6


def test_the_command_fine_tunes_a_model_and_resumes(
    manifest: Path,
    tiny_model: Path,
    rendered: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    validation = tmp_path / "validation.jsonl"
    other = tmp_path / "other.mp4"
    other.write_bytes((manifest.parent / "demo.mp4").read_bytes())
    validation.write_text(json.dumps({"media": "other.mp4", "text": SENTENCE}))
    arguments = ["--manifest", str(manifest), "--begin-with", str(tiny_model), "--out", str(tmp_path / "run")]
    options = ["--rendered", str(rendered), "--validation", str(validation), "--cache", str(cache)]
    command = [*arguments, *options, "--workers", "1", "--threads", "1", "--name", "mine"]
    assert train_command.main([*command, "--minutes", "0.0001"]) == 0
    output = capsys.readouterr()
    path = tmp_path / "run" / MODEL_FILE
    assert output.out == f"{path}\n"
    assert "using 2 of 2 clips" in output.err
    assert "validation: clips, audio-visual" in output.err
    tuned, base = load_model(path), load_model(tiny_model)
    assert tuned.card["name"] == "mine"
    assert tuned.card["license"]["summary"] == "Free. The terms of the training clips may apply as well."
    assert "2 recorded clips and rendered speakers: 1 steps" in tuned.card["trained_on"]
    assert tuned.tokens == base.tokens
    assert not torch.equal(
        tuned.network.encoder.post_extract_proj.weight, base.network.encoder.post_extract_proj.weight
    )
    assert train_command.main(command) == 1
    assert "already has a run: pass --resume" in capsys.readouterr().err
    assert train_command.main([*command, "--minutes", "0.0002", "--resume"]) == 0
    assert "2 steps" in load_model(path).card["trained_on"]


def test_a_clip_in_training_and_validation_is_refused(
    manifest: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--manifest", str(manifest), "--validation", str(manifest), "--begin-with", str(tiny_model)]
    assert train_command.main([*arguments, "--out", str(tmp_path)]) == 1
    assert "1 clips are in the training and the validation data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "no clips: pass --manifest, --grid or --lrs3"),
        (["--manifest", "absent.jsonl"], "absent.jsonl cannot be read"),
        (["--grid", "absent"], "absent has no clips of the GRID corpus"),
        (["--begin-with", "absent.safetensors"], "absent.safetensors does not exist"),
    ],
)
def test_unusable_options_are_explained(
    options: list[str], expected: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--begin-with", str(tiny_model), "--out", str(tmp_path), *options]
    assert train_command.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("gorggle train: error: ")
    assert expected in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_explained(
    manifest: Path, tiny_model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--manifest", str(manifest), "--begin-with", str(tiny_model), "--out", str(tmp_path)]
    assert train_command.main([*arguments, "--cache", str(cache), "--workers", "1", "--device", "cuda"]) == 1
    assert "--device is cuda, but PyTorch found no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--workers", "0"), ("--minutes", "-1"), ("--recorded-share", "1.5"), ("--threads", "x")],
)
def test_values_out_of_range_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train_command.main(["--out", str(tmp_path), option, value])
    assert f"{value!r} is not" in capsys.readouterr().err


def test_words_that_the_model_cannot_spell_are_left_out(
    manifest: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes((manifest.parent / "demo.mp4").read_bytes())
    accented = tmp_path / "accented.jsonl"
    accented.write_text(json.dumps({"media": "clip.mp4", "text": "naïve"}))
    arguments = ["--manifest", str(accented), "--begin-with", str(tiny_model), "--out", str(tmp_path / "run")]
    assert train_command.main(arguments) == 1
    assert "the model has no tokens for 'naïve'" in capsys.readouterr().err


def test_a_model_with_learnt_activation_slopes_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    model.network.encoder.feature_extractor_video.resnet.frontend3D[2].weight[0] = 0.3
    path = tmp_path / "other.safetensors"
    vocabulary = model.vocabulary
    save_model(model.network, model.config, model.tokens, vocabulary.sentencepiece_model, {}, path)
    with pytest.raises(ModelFormatError, match="its activation slopes are not"):
        load_base_model(str(path))


def test_training_begins_with_an_embedded_model_by_its_name() -> None:
    assert load_base_model("gorggle-mini-2").card["name"] == "gorggle-mini-2"
    with pytest.raises(NotFoundError, match="unknown model 'gorggle-mini-9'; available: gorggle-mini-1"):
        load_base_model("gorggle-mini-9")


def test_a_real_clip_is_cropped_completely() -> None:
    if "GORGGLE_REAL_DATA" not in os.environ:
        pytest.skip("set GORGGLE_REAL_DATA to a folder with grid/validation.jsonl to test real clips")
    clip = next(read_manifest_clips(Path(os.environ["GORGGLE_REAL_DATA"]) / "grid" / "validation.jsonl"))
    assert isinstance(clip, LabelledClip)
    utterance = read_utterance(clip)
    assert utterance.frames == 75
    assert utterance.text == clip.text
