"""The training loop: that it learns, stops, goes on, and writes a model that the server loads."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gorggle_server.avhubert import ModelConfig, load_model, save_model
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.types import Word
from training.dataset import BatchStream
from training.gorggle_mini import NAME, build_model_card, export_model
from training.learning_curves import MetricsLog
from training.loss import LossWeights, TrainingLoss, compute_frame_features
from training.metrics import compute_error_rate, compute_time_error
from training.sentences import Split
from training.shards import UtteranceStore, write_shard
from training.speech_synthesis import TimedWord
from training.tokenizer import Tokenizer, train_tokenizer
from training.train import TrainingOptions, TrainingRun, small_config

OPTIONS = TrainingOptions(minutes=0.5, frames_per_batch=260, threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> UtteranceStore:
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder, Split.TRAIN, 0, 6)
    return UtteranceStore(folder, Split.TRAIN)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


def tiny_config(vocabulary_size: int) -> ModelConfig:
    return ModelConfig(
        encoder_layers=1,
        encoder_dim=32,
        encoder_ffn_dim=64,
        encoder_heads=2,
        decoder_layers=1,
        decoder_dim=32,
        decoder_ffn_dim=64,
        decoder_heads=2,
        vocabulary_size=vocabulary_size,
        frontend_channels=2,
        position_kernel_size=8,
        position_groups=4,
        max_target_size=64,
    )


def tiny_run(out: Path, store: UtteranceStore, tokenizer: Tokenizer) -> TrainingRun:
    return TrainingRun(out, store, tokenizer, tiny_config(len(tokenizer.tokens)), OPTIONS)


def test_a_few_steps_on_one_batch_reduce_every_part_of_the_loss(
    tmp_path: Path, store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    run = tiny_run(tmp_path, store, tokenizer)
    batch = BatchStream(store, tokenizer, 10_000, 0).make_batch([0, 1])
    run.elapsed_s = 0.04 * 30  # past the warm-up
    first = run.step(batch)
    for _ in range(40):
        last = run.step(batch)
    assert set(first) == {"sentence", "frame units", "motion", "attention"}
    assert last["sentence"] < 0.85 * first["sentence"]
    assert all(last[name] < first[name] for name in first)


def test_a_run_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    run = tiny_run(tmp_path, store, tokenizer)
    run.train(lambda _: None, max_steps=3)
    resumed = tiny_run(tmp_path, store, tokenizer)
    assert resumed.steps == 3
    assert resumed.elapsed_s == run.elapsed_s > 0
    for name, weight in run.criterion.state_dict().items():
        assert torch.equal(weight, resumed.criterion.state_dict()[name]), name
    resumed.train(lambda _: None, max_steps=1)
    assert resumed.steps == 4
    assert (tmp_path / "learning.png").stat().st_size > 1000


def test_other_units_than_the_run_began_with_are_refused(
    tmp_path: Path, store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    tiny_run(tmp_path, store, tokenizer).save()
    others = Tokenizer((*tokenizer.tokens[:-1], "ß"), tokenizer.sentencepiece_model)
    with pytest.raises(ValueError, match="trained on other units"):
        tiny_run(tmp_path, store, others)


def test_a_trained_network_loads_as_a_model(
    tmp_path: Path, store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    run = tiny_run(tmp_path, store, tokenizer)
    run.train(lambda _: None, max_steps=2)
    path = tmp_path / "tiny.safetensors"
    units = list(tokenizer.tokens)
    save_model(
        run.averaged, run.config, units, tokenizer.sentencepiece_model, build_model_card(2, 0.1, None), path
    )
    model = load_model(path)
    assert model.tokens == units
    video = torch.zeros(1, 12, 88, 88)
    assert torch.allclose(model.encode(video=video), run.averaged.encode(video=video), atol=1e-4)
    assert model.card["name"] == NAME


def test_export_writes_the_averaged_weights_of_a_run(
    tmp_path: Path, store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    run = TrainingRun(tmp_path, store, tokenizer, small_config(len(tokenizer.tokens)), OPTIONS)
    run.save()
    measured = {"modality": "video only", "condition": "clean", "words": {"rate": 0.25}}
    in_white_noise = {**measured, "condition": "white at 0 dB"}
    conditions = {"video only, clean": measured, "video only, white at 0 dB": in_white_noise}
    evaluation = {"grid": {"sentences": 7, "beam_size": 5, "conditions": conditions}}
    export_model(tmp_path, tmp_path / "model.safetensors", evaluation, "an earlier run of 5 minutes")
    model = load_model(tmp_path / "model.safetensors")
    assert "begun with the weights of an earlier run of 5 minutes" in model.card["trained_on"]
    (error_rate,) = model.card["error_rates"]
    assert error_rate["modality"] == "video"
    assert error_rate["word_error_rate_percent"] == 25.0
    assert "7 sentences of the GRID grammar, rendered" in error_rate["dataset"]
    weight = run.averaged.decoder.embed_tokens.weight
    assert torch.allclose(model.network.decoder.embed_tokens.weight, weight, atol=1e-3)
    assert (tmp_path / "model.safetensors").stat().st_size < 15_000_000


def test_the_fast_front_end_computes_what_the_network_does(
    store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    torch.manual_seed(0)
    network = AVHubertNetwork(tiny_config(len(tokenizer.tokens))).eval()
    TrainingLoss(network, 10, LossWeights())  # sets the slopes
    resnet = network.encoder.feature_extractor_video.resnet
    video = torch.randn(2, 11, 88, 88)
    padding_mask = torch.arange(11)[None, :] >= torch.tensor([11, 7])[:, None]
    video[padding_mask] = 0.0
    with torch.no_grad():
        assert torch.allclose(
            compute_frame_features(resnet, video, padding_mask), resnet(video, padding_mask), atol=1e-5
        )


def test_the_learning_rate_rises_and_falls(
    tmp_path: Path, store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    run = tiny_run(tmp_path, store, tokenizer)
    rates = []
    for share in (0.0, 0.04, 0.5, 1.0):
        run.elapsed_s = share * OPTIONS.minutes * 60
        rates.append(run.learning_rate())
    assert rates[0] < rates[1] == pytest.approx(OPTIONS.learning_rate)
    assert rates[1] > rates[2] > rates[3] > 0


def test_the_journal_gives_back_its_notes_by_kind(tmp_path: Path) -> None:
    journal = MetricsLog(tmp_path / "journal.jsonl")
    journal.add("loss", 1.0, {"sentence": 2.5})
    journal.add("error", 2.0, {"video only": 0.5})
    assert journal.entries("loss") == [{"minutes": 1.0, "sentence": 2.5}]
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2


def test_errors_are_counted_by_kind_and_place() -> None:
    truth = ["bin blue at f two now", "set red in a one soon"]
    measured = compute_error_rate(truth, ["bin blue at s two now", "set in a one soon soon"])
    assert (measured.substitutions, measured.insertions, measured.deletions) == (1, 1, 1)
    assert measured.rate == pytest.approx(3 / 12)
    assert measured.interval[0] <= measured.rate <= measured.interval[1]
    assert measured.by_slot["letter"] == 0.5
    assert measured.by_slot["colour"] == 0.5
    assert measured.by_slot["digit"] == 0.0
    json.dumps(vars(measured))


def test_word_times_are_compared_for_right_words_only() -> None:
    truth = [(TimedWord("bin", 0.0, 0.2), TimedWord("blue", 0.2, 0.5))]
    heard = [(Word("bin", 0.04, 0.2, 1.0), Word("green", 0.2, 3.0, 1.0))]
    measured = compute_time_error(truth, heard)
    assert measured is not None
    assert measured.words == 1
    assert measured.median_start_ms == pytest.approx(40.0)
    assert measured.within_100_ms == 1.0
    assert compute_time_error(truth, [()]) is None
