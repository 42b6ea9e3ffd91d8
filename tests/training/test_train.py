"""The training loop: loss reduction, resumption, export and learning rate schedule."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gorggle_server.avhubert import ModelConfig, load_model, save_model
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_training.dataset import BatchStream
from gorggle_training.gorggle_mini import NAME, build_model_card, export_model
from gorggle_training.learning_curves import MetricsLog
from gorggle_training.loss import OTHER_LIPS_SHARE, TrainingLoss, compute_frame_features, swap_lips
from gorggle_training.sentences import Split
from gorggle_training.shards import UtteranceStore, write_shard
from gorggle_training.tokenizer import train_tokenizer
from gorggle_training.train import (
    MIN_FRONTEND_CHANNELS,
    TrainingOptions,
    TrainingRun,
    has_fast_bfloat16,
    small_config,
)

OPTIONS = TrainingOptions(minutes=0.5, frames_per_batch=260, threads=1)


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
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
def tokenizer() -> Vocabulary:
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
        frontend_channels=MIN_FRONTEND_CHANNELS,
        position_kernel_size=8,
        position_groups=4,
        max_target_size=64,
    )


def make_tiny_run(out: Path, store: UtteranceStore, tokenizer: Vocabulary) -> TrainingRun:
    return TrainingRun(out, store, tokenizer, tiny_config(len(tokenizer.tokens)), OPTIONS)


def test_a_few_steps_on_one_batch_reduce_every_loss_term(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    run = make_tiny_run(tmp_path, store, tokenizer)
    batch = BatchStream(store, tokenizer, 10_000, 0).make_batch([0, 1])
    run.elapsed_s = 0.04 * 30  # past the warm-up
    first = run.step(batch)
    for _ in range(40):
        last = run.step(batch)
    assert set(first) == {"sentence", "frame tokens", "motion", "attention"}
    assert last["sentence"] < 0.85 * first["sentence"]
    assert all(last[name] < first[name] for name in first)


def test_a_stopped_run_can_be_resumed(tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary) -> None:
    run = make_tiny_run(tmp_path, store, tokenizer)
    run.train(lambda _: None, max_steps=3)
    resumed = make_tiny_run(tmp_path, store, tokenizer)
    assert resumed.steps == 3
    assert resumed.elapsed_s == run.elapsed_s > 0
    for name, weight in run.criterion.state_dict().items():
        assert torch.equal(weight, resumed.criterion.state_dict()[name]), name
    resumed.train(lambda _: None, max_steps=1)
    assert resumed.steps == 4
    assert (tmp_path / "learning.png").stat().st_size > 1000


def test_a_network_too_narrow_for_the_convolutions_is_refused(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    config = replace(tiny_config(len(tokenizer.tokens)), frontend_channels=MIN_FRONTEND_CHANNELS - 1)
    with pytest.raises(ValueError, match="7 frontend channels: training needs 8"):
        TrainingRun(tmp_path, store, tokenizer, config, OPTIONS)


def test_resuming_with_other_tokens_is_refused(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    make_tiny_run(tmp_path, store, tokenizer).save()
    other_vocabulary = Vocabulary([*tokenizer.tokens[:-1], "ß"], tokenizer.sentencepiece_model)
    with pytest.raises(ValueError, match="trained with other tokens"):
        make_tiny_run(tmp_path, store, other_vocabulary)


def test_resuming_with_another_architecture_is_refused(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    make_tiny_run(tmp_path, store, tokenizer).save()
    larger = replace(tiny_config(len(tokenizer.tokens)), encoder_layers=2)
    with pytest.raises(ValueError, match="trained with another architecture"):
        TrainingRun(tmp_path, store, tokenizer, larger, OPTIONS)


def test_a_trained_network_loads_as_a_model(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    run = make_tiny_run(tmp_path, store, tokenizer)
    run.train(lambda _: None, max_steps=2)
    path = tmp_path / "tiny.safetensors"
    tokens = tokenizer.tokens
    save_model(
        run.averaged, run.config, tokens, tokenizer.sentencepiece_model, build_model_card(2, 0.1, None), path
    )
    model = load_model(path)
    assert model.tokens == tokens
    video = torch.zeros(1, 12, 88, 88)
    assert torch.allclose(model.encode(video=video), run.averaged.encode(video=video), atol=1e-4)
    assert model.card["name"] == NAME


def test_export_writes_the_averaged_weights_of_a_run(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    run = TrainingRun(tmp_path, store, tokenizer, small_config(len(tokenizer.tokens)), OPTIONS)
    run.save()
    measured = {"modality": "video only", "condition": "clean", "words": {"rate": 0.25}}
    measured_in_noise = {**measured, "condition": "white at 0 dB"}
    conditions = {"video only, clean": measured, "video only, white at 0 dB": measured_in_noise}
    evaluation = {"grid": {"sentences": 7, "beam_size": 5, "conditions": conditions}}
    export_model(tmp_path, tmp_path / "model.safetensors", evaluation, "an earlier run of 5 minutes")
    model = load_model(tmp_path / "model.safetensors")
    assert "initialized with the weights of an earlier run of 5 minutes" in model.card["trained_on"]
    (error_rate,) = model.card["error_rates"]
    assert error_rate["modality"] == "video"
    assert error_rate["word_error_rate_percent"] == 25.0
    assert "7 sentences of the GRID grammar, rendered" in error_rate["dataset"]
    weight = run.averaged.decoder.embed_tokens.weight
    assert torch.allclose(model.network.decoder.embed_tokens.weight, weight, atol=1e-3)
    assert (tmp_path / "model.safetensors").stat().st_size < 15_000_000


def test_the_fast_frame_features_equal_those_of_the_network(
    store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    torch.manual_seed(0)
    network = AVHubertNetwork(tiny_config(len(tokenizer.tokens))).eval()
    TrainingLoss(network, 10)  # sets the activation slopes
    resnet = network.encoder.feature_extractor_video.resnet
    video = torch.randn(2, 11, 88, 88)
    padding_mask = torch.arange(11)[None, :] >= torch.tensor([11, 7])[:, None]
    video[padding_mask] = 0.0
    with torch.no_grad():
        assert torch.allclose(
            compute_frame_features(resnet, video, padding_mask), resnet(video, padding_mask), atol=1e-5
        )


def test_only_utterances_with_clean_audio_get_the_lips_of_others(
    store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    torch.manual_seed(0)
    batch = BatchStream(store, tokenizer, 10_000, 0).make_batch([0, 1])
    batch = replace(batch, audio=batch.clean_audio.clone())
    batch.audio[1] += 1.0
    video = torch.arange(2.0)[:, None, None].expand(2, *batch.audio.shape[1:2], 3)
    swapped = torch.stack([swap_lips(video, batch)[:, 0, 0] for _ in range(200)])
    assert swapped[:, 0].mean().item() == pytest.approx(OTHER_LIPS_SHARE, abs=0.1)
    assert swapped[:, 1].eq(1).all()


def test_the_learning_rate_warms_up_and_decays(
    tmp_path: Path, store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    run = make_tiny_run(tmp_path, store, tokenizer)
    learning_rates = []
    for share in (0.0, 0.04, 0.5, 1.0):
        run.elapsed_s = share * OPTIONS.minutes * 60
        learning_rates.append(run.learning_rate())
    assert learning_rates[0] < learning_rates[1] == pytest.approx(OPTIONS.learning_rate)
    assert learning_rates[1] > learning_rates[2] > learning_rates[3] > 0


def test_the_metrics_log_returns_entries_by_kind(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add("loss", 1.0, {"sentence": 2.5})
    log.add("error", 2.0, {"video only": 0.5})
    assert log.entries("loss") == [{"minutes": 1.0, "sentence": 2.5}]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, False),
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_is_only_used_on_cpus_with_native_support(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_fast_bfloat16("cpu") is expected
    assert has_fast_bfloat16("cuda")


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_a_step_computes_in_bfloat16_only_if_it_is_fast(
    tmp_path: Path,
    store: UtteranceStore,
    tokenizer: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
    has_bfloat16: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bfloat16})
    run = make_tiny_run(tmp_path, store, tokenizer)
    dtypes = []
    run.criterion.token_head.register_forward_hook(lambda *call: dtypes.append(call[-1].dtype))
    run.step(BatchStream(store, tokenizer, 10_000, 0).make_batch([0]))
    assert dtypes == [torch.bfloat16 if has_bfloat16 else torch.float32]
