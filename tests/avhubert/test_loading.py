"""Loading, conversion and description of fairseq checkpoints and Gorggle model files, and their errors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gorggle_server.avhubert import Model, convert, info, load_model, save_model
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.errors import InvalidRequestError, ModelFormatError, NotFoundError
from tests.avhubert import golden, reference_files

SMALL = ModelConfig(
    encoder_layers=1,
    encoder_dim=16,
    encoder_ffn_dim=16,
    encoder_heads=2,
    decoder_layers=1,
    decoder_dim=16,
    decoder_ffn_dim=16,
    decoder_heads=2,
    vocabulary_size=37,
    frontend_channels=2,
    position_kernel_size=8,
    position_groups=4,
    alignment_heads=((0, 1),),
    dropout=0.1,
)
CARD = {
    "name": "small",
    "license": {"name": "Apache-2.0", "commercial_use": True},
    "languages": ["en"],
    "error_rates": [{"dataset": "drawn", "modality": "video", "word_error_rate_percent": 50.0}],
}


def run_model(model: Model) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
    """Return the encoder output, logits and hypotheses of a model for a golden input."""
    clip, tokens = golden.clip("av7"), golden.array("av7", "prev_output_tokens")
    assert tokens is not None
    encoded = model.encode(clip.video, clip.audio)
    found = model.beam_search(encoded, beam=3, max_len=20)[0]
    return encoded, model.logits(encoded, None, tokens), [hypothesis.tokens for hypothesis in found]


def assert_golden(model: Model) -> None:
    """Assert that a model computes the golden results."""
    encoded, logits, tokens = run_model(model)
    golden.assert_close(encoded, golden.array("av7", "encoder_out"))
    golden.assert_close(logits, golden.array("av7", "logits"))
    assert len(tokens) == 3


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    vocabulary = golden.vocabulary()
    path = tmp_path / "small.safetensors"
    save_model(AVHubertNetwork(SMALL), SMALL, vocabulary.tokens, vocabulary.sentencepiece_model, CARD, path)
    return path


def test_a_fairseq_checkpoint_is_loaded(full_checkpoint: Path) -> None:
    model = load_model(full_checkpoint)
    assert_golden(model)
    assert model.config == golden.CONFIG
    assert model.tokens == golden.vocabulary().tokens
    assert model.vocabulary.encode("go now") == golden.vocabulary().encode("go now")
    assert model.device.type == "cpu"
    assert model.dtype == torch.float32


def test_conversion_does_not_change_results(full_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "converted.safetensors"
    convert(full_checkpoint, out, {"license": {"name": "see the publisher"}, "name": "golden"})
    converted = load_model(out)
    for found, expected in zip(run_model(converted), run_model(load_model(full_checkpoint)), strict=True):
        if isinstance(found, torch.Tensor):
            assert torch.equal(found, expected)
        else:
            assert found == expected
    assert converted.card == {"license": {"name": "see the publisher"}, "name": "golden"}
    assert converted.vocabulary.sentencepiece_model == golden.vocabulary().sentencepiece_model
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "rearrange",
    [reference_files.with_old_namespace, reference_files.with_omegaconf],
    ids=["args-namespace", "omegaconf"],
)
def test_other_configuration_layouts_are_read(
    rearrange: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "other.pt"
    checkpoint = rearrange(reference_files.make_checkpoint({"encoder.w2v_model.mask_emb": torch.ones(3)}))
    checkpoint["extra_state"] = {"train_meters": {"loss": reference_files.AverageMeter()}}
    reference_files.save(checkpoint, path)
    assert info(path)["config"] == golden.CONFIG.to_dict()


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        (["video"], ("video",)),
        (["video", "audio"], ("audio", "video")),
        (None, ("audio", "video")),
        (7, ("audio", "video")),
    ],
)
def test_modalities_are_read_from_the_checkpoint(
    tmp_path: Path, modalities: object, expected: tuple[str, ...]
) -> None:
    checkpoint = reference_files.make_checkpoint({})
    checkpoint["cfg"]["task"]["modalities"] = modalities
    path = tmp_path / "modalities.pt"
    reference_files.save(checkpoint, path)
    assert info(path)["modalities"] == list(expected)


def test_a_legacy_torch_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pt"
    reference_files.save(reference_files.make_checkpoint(golden.reference_state()), path, is_legacy=True)
    assert not zipfile.is_zipfile(path)
    assert_golden(load_model(path))


def test_a_separate_output_projection_is_used(tmp_path: Path) -> None:
    state = golden.reference_state()
    path = tmp_path / "untied.pt"
    reference_files.save(
        reference_files.make_checkpoint(
            {**state, "decoder.embed_out": -state["decoder.embed_tokens.weight"]}
        ),
        path,
    )
    model = load_model(path)
    assert not model.config.share_embeddings
    tokens = golden.array("av7", "prev_output_tokens")
    encoder_out, logits = golden.array("av7", "encoder_out"), golden.array("av7", "logits")
    assert tokens is not None
    assert encoder_out is not None
    assert logits is not None
    golden.assert_close(model.logits(encoder_out, None, tokens), -logits)
    out = tmp_path / "untied.safetensors"
    convert(path, out)
    assert torch.equal(
        load_model(out).logits(encoder_out, None, tokens), model.logits(encoder_out, None, tokens)
    )


def test_a_duplicated_tied_output_projection_is_converted(tmp_path: Path) -> None:
    state = golden.reference_state()
    path, out = tmp_path / "twice.pt", tmp_path / "twice.safetensors"
    embedding = state["decoder.embed_tokens.weight"]
    reference_files.save(reference_files.make_checkpoint({**state, "decoder.embed_out": embedding}), path)
    convert(path, out)
    assert_golden(load_model(out))


def test_a_missing_output_directory_is_reported(small_file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"folder .*absent does not exist"):
        convert(small_file, tmp_path / "absent" / "out.safetensors")


def test_pre_training_weights_are_ignored(tmp_path: Path) -> None:
    extra = {
        "encoder.w2v_model.final_proj.weight": torch.ones(2, 2),
        "encoder.w2v_model.label_embs_concat": torch.ones(2),
        "encoder.w2v_model.target_glu.0.weight": torch.ones(2),
        "decoder.version": torch.ones(1),
    }
    path = tmp_path / "extra.pt"
    reference_files.save(reference_files.make_checkpoint({**golden.reference_state(), **extra}), path)
    assert_golden(load_model(path))


def test_tensors_that_share_a_storage_are_read(tmp_path: Path) -> None:
    state = golden.reference_state()
    names = [name for name in state if name.startswith("decoder.layers.0.self_attn")]
    flat = torch.cat([state[name].flatten() for name in names])
    views = dict(zip(names, flat.split([state[name].numel() for name in names]), strict=True))
    shared = {name: view.view_as(state[name]) for name, view in views.items()}
    path = tmp_path / "shared.pt"
    reference_files.save(reference_files.make_checkpoint({**state, **shared}), path)
    assert_golden(load_model(path))


def test_a_saved_model_file_round_trips(small_file: Path) -> None:
    model = load_model(small_file)
    assert model.config == SMALL
    assert model.card == CARD
    assert model.tokens == golden.vocabulary().tokens
    assert model.vocabulary.encode("soon") == golden.vocabulary().encode("soon")
    torch.manual_seed(3)
    expected = AVHubertNetwork(SMALL).eval()
    for name, weight in model.network.state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name]), name


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path, small_file: Path, stored: str) -> None:
    out = tmp_path / "narrow.safetensors"
    convert(small_file, out, dtype=stored)
    assert info(out)["dtypes"] == {stored: len(AVHubertNetwork(SMALL).state_dict()) - 20}
    assert load_model(out).dtype == torch.float32
    assert out.stat().st_size < small_file.stat().st_size


def test_info_does_not_build_the_network(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr("gorggle_server.avhubert.checkpoints.stored_model.StoredModel.build_network", fail)
    described = info(small_file)
    assert json.loads(json.dumps(described)) == described | {
        "config": json.loads(json.dumps(SMALL.to_dict()))
    }
    assert described["name"] == "small"
    assert described["layout"] == "gorggle-avhubert 1"
    assert described["parameters"] == sum(
        weight.numel()
        for name, weight in AVHubertNetwork(SMALL).state_dict().items()
        if "num_batches" not in name
    )
    assert described["card"] == CARD
    assert described["problems"] == []
    assert described["has_sentencepiece"]


def test_missing_weights_are_named_in_the_error() -> None:
    with pytest.raises(
        ModelFormatError, match=r"missing encoder\.feature_extractor_video\.resnet\..* and 112 more"
    ):
        load_model(golden.CHECKPOINT_WITHOUT_RESNET)
    assert "and 112 more" in info(golden.CHECKPOINT_WITHOUT_RESNET)["problems"][0]


def test_unexpected_and_mismatched_weights_are_named_in_the_error(tmp_path: Path) -> None:
    state = {**golden.reference_state(), "decoder.surprise": torch.ones(1)}
    state["decoder.layer_norm.bias"] = torch.ones(65)
    state["decoder.layer_norm.weight"] = torch.ones(64, dtype=torch.int64)
    path = tmp_path / "strange.pt"
    reference_files.save(reference_files.make_checkpoint(state), path)
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    assert "unexpected decoder.surprise" in str(caught.value)
    assert "decoder.layer_norm.bias has shape (65,); expected (64,)" in str(caught.value)
    assert "decoder.layer_norm.weight has type torch.int64" in str(caught.value)
    with pytest.raises(ModelFormatError, match="unexpected"):
        convert(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_saving_with_a_mismatched_configuration_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="missing"):
        save_model(
            AVHubertNetwork(SMALL), golden.CONFIG, golden.vocabulary().tokens, None, {}, tmp_path / "x"
        )
    with pytest.raises(ModelFormatError, match="36 tokens; expected 37"):
        save_model(AVHubertNetwork(SMALL), SMALL, golden.vocabulary().tokens[:-1], None, {}, tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: root.pop("model"), "has no model"),
        (lambda root: root.pop("task_state"), "target_dictionary"),
        (lambda root: root["task_state"].pop("target_dictionary"), "target_dictionary"),
        (lambda root: (root.pop("cfg"), root.pop("args")), "neither cfg.model nor args"),
        (lambda root: root["cfg"]["model"].pop("w2v_args"), "w2v_args"),
        (lambda root: root["cfg"]["model"].pop("decoder_layers"), "lacks decoder_layers"),
        (lambda root: root["cfg"]["model"].update(decoder_layers=10**9), "integer from 1 to 256"),
        (lambda root: root["cfg"]["model"].update(decoder_layers=[[[]]] * 9), "decoder_layers is"),
        (lambda root: root["cfg"]["model"].update(decoder_learned_pos=True), "decoder_learned_pos"),
        (
            lambda root: root["cfg"]["model"]["w2v_args"]["model"].update(layer_norm_first=False),
            "layer_norm_first",
        ),
        (
            lambda root: root["cfg"]["model"]["w2v_args"]["model"].update(encoder_attention_heads=7),
            "divisible",
        ),
        (lambda root: root["model"].update(x="text"), "x is not a tensor"),
    ],
)
def test_an_unsupported_checkpoint_is_rejected_with_the_reason(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    checkpoint = reference_files.make_checkpoint({})
    change(checkpoint)
    path = tmp_path / "other.pt"
    reference_files.save(checkpoint, path)
    with pytest.raises(ModelFormatError, match=message):
        load_model(path)


def test_a_missing_file_raises_not_found_error(tmp_path: Path) -> None:
    for function in (load_model, info, lambda path: convert(path, tmp_path / "out")):
        with pytest.raises(NotFoundError, match="absent"):
            function(tmp_path / "absent.pt")


def test_a_directory_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"<html>", b"\x80", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{", b"\0" * 99]
)
def test_a_file_that_is_not_a_model_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pt"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError):
        load_model(path)


def test_an_unrelated_safetensors_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.ones(2)}, path)
    with pytest.raises(ModelFormatError, match="gorggle model convert"):
        load_model(path)


def test_a_newer_format_version_is_rejected(small_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    path.write_bytes(small_file.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(ModelFormatError, match="version '2'"):
        load_model(path)


def test_an_unavailable_device_or_dtype_is_rejected(
    small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidRequestError, match="found no GPU"):
        load_model(small_file, device="cuda")
    with pytest.raises(InvalidRequestError, match="unknown device 'quantum'"):
        load_model(small_file, device="quantum")
    with pytest.raises(InvalidRequestError, match="float32, bfloat16"):
        load_model(small_file, dtype="int8")


def test_bfloat16_output_is_close_to_float32(full_checkpoint: Path) -> None:
    model = load_model(full_checkpoint, dtype="bfloat16")
    encoded, logits, tokens = run_model(model)
    assert encoded.dtype == logits.dtype == torch.bfloat16
    expected = golden.array("av7", "encoder_out")
    assert expected is not None
    # Each matrix product rounds its result to an 8-bit mantissa; in the worst case the errors add up.
    tolerance = golden.PRODUCTS_IN_ENCODER * torch.finfo(torch.bfloat16).eps
    assert (encoded.float() - expected).norm() < tolerance * expected.norm()
    assert all(len(sequence) >= 2 for sequence in tokens)
    hypothesis = model.beam_search(encoded, beam=2, max_len=8)[0][0]
    assert all(word.end_s > word.start_s for word in model.align_words(encoded[0], hypothesis))
