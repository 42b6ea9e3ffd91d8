"""onnxruntime computes the same as torch, for the embedded models and for random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gorggle_server.avhubert import AVHubertNetwork, Hypothesis, Model, ModelConfig, convert, load_model
from gorggle_server.avhubert.checkpoints.safetensors_file import write_model
from gorggle_server.avhubert.decoder import sinusoidal_positions
from gorggle_server.avhubert.onnx_loading import GRAPHS, can_load, load_onnx_model, read_config
from gorggle_server.avhubert.onnx_model import OnnxModel
from gorggle_server.avhubert.onnx_weights import compute_position_table
from gorggle_server.errors import ModelFormatError
from gorggle_server.settings import EMBEDDED_MODEL
from gorggle_training.__main__ import main
from tests.avhubert import golden
from tests.avhubert.onnx_models import make_onnx_model

EMBEDDED = sorted(EMBEDDED_MODEL.parent.glob("gorggle-mini-*.safetensors"))
MODALITIES = ((True, True), (True, False), (False, True))
LENGTHS = (1, 2, 33, 70)


def make_clips(
    config: ModelConfig, seed: int, *, video: bool, audio: bool
) -> tuple[list[NDArray[np.uint8]] | None, list[NDArray[np.float32]] | None]:
    rng = np.random.default_rng(seed)
    crops = [rng.integers(0, 256, (frames, 88, 88)).astype(np.uint8) for frames in LENGTHS]
    features = [rng.standard_normal((frames, config.audio_dim)).astype(np.float32) for frames in LENGTHS]
    return crops if video else None, features if audio else None


def search_clips(model: Model | OnnxModel, clips: list[object], beam: int) -> list[list[Hypothesis]]:
    search, found = model.start_beam_search(beam=beam), {}
    for number, clip in enumerate(clips):  # they join at different steps
        search.add([number], [clip], [12 + number])
        found.update(search.step())
    while search.keys:
        found.update(search.step())
    return [found[number] for number in range(len(clips))]


def assert_models_agree(model: Model, ours: OnnxModel, seed: int) -> None:
    for video, audio in MODALITIES:
        clips = make_clips(model.config, seed, video=video, audio=audio)
        expected, encoded = model.encode_clips(*clips), ours.encode_clips(*clips)
        for clip, wanted in zip(encoded, expected, strict=True):
            golden.assert_close(torch.from_numpy(clip), wanted)
        for beam in (1, 5):
            found, wanted_hypotheses = (
                search_clips(ours, encoded, beam),
                search_clips(model, expected, beam),
            )
            for number, (some, wanted_some) in enumerate(zip(found, wanted_hypotheses, strict=True)):
                assert [one.tokens for one in some] == [one.tokens for one in wanted_some]
                assert [one.text for one in some] == [one.text for one in wanted_some]
                scores = [one.token_scores for one in some]
                for score, wanted_score in zip(scores, wanted_some, strict=True):
                    assert score == pytest.approx(wanted_score.token_scores, abs=1e-3)
                words = ours.align_words(encoded[number], some[0])
                wanted_words = model.align_words(expected[number], wanted_some[0])
                assert [(word.text, word.start_s, word.end_s) for word in words] == [
                    (word.text, word.start_s, word.end_s) for word in wanted_words
                ]


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.stem)
@pytest.mark.parametrize("is_optimized", [False, True])
def test_embedded_models_compute_the_same_as_with_torch(path: Path, is_optimized: bool) -> None:
    model, ours = load_model(path), load_onnx_model(path)
    assert ours.card == model.card
    assert ours.parameter_count == model.parameter_count
    assert ours.config == model.config
    assert_models_agree(model.optimize() if is_optimized else model, ours, seed=1)


def test_the_golden_model_computes_the_same_as_with_torch(tmp_path: Path) -> None:
    network = golden.network()
    assert_models_agree(Model(network, golden.vocabulary()), make_onnx_model(network, tmp_path), seed=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_embeddings": True, "share_embeddings": False},
        {"position_kernel_size": 7, "position_groups": 4, "decoder_dim": 32},
        {"alignment_heads": ((0, 1), (1, 0), (1, 3)), "frontend_channels": 8},
    ],
)
def test_other_architectures_compute_the_same_as_with_torch(
    changes: dict[str, object], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    network = AVHubertNetwork(ModelConfig(**{**vars(golden.CONFIG), **changes})).eval().requires_grad_(False)
    for name, weight in network.named_parameters():
        if name.startswith("decoder") and weight.dim() == 2:
            weight.mul_(2)  # for attention and scores that are not uniform
    assert_models_agree(Model(network, golden.vocabulary()), make_onnx_model(network, tmp_path), seed=3)


def test_the_embedded_graphs_are_those_of_the_embedded_models(tmp_path: Path) -> None:
    assert EMBEDDED
    for path in EMBEDDED:
        assert main(["graphs", "--folder", str(tmp_path), str(path)]) == 0
        assert {file.name for file in tmp_path.iterdir()} == {file.name for file in GRAPHS.iterdir()}
        for file in tmp_path.iterdir():
            assert file.read_bytes() == (GRAPHS / file.name).read_bytes(), "run `make export`"


def test_positions_are_those_of_torch() -> None:
    expected = sinusoidal_positions(torch.arange(258), 192)
    np.testing.assert_allclose(compute_position_table(258, 192), expected.numpy(), atol=3e-5)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), seed=st.integers(0, 9), data=st.data())
def test_clips_do_not_affect_each_other(lengths: list[int], seed: int, data: st.DataObject) -> None:
    ours = load_embedded()
    rng = np.random.default_rng(seed)
    clips = [rng.standard_normal((frames, ours.config.encoder_dim)).astype(np.float32) for frames in lengths]
    alone = [search_clips(ours, [clip], 3)[0] for clip in clips]
    search, found = ours.start_beam_search(beam=3), {}
    removed = data.draw(st.integers(0, len(clips)))
    for number, clip in enumerate(clips):
        search.add([number], [clip], [12])
        if data.draw(st.booleans()):
            found.update(search.step())
    if removed in search.keys:
        search.remove(removed)
    while search.keys:
        found.update(search.step())
    for number, hypotheses in found.items():
        assert [one.tokens for one in hypotheses] == [one.tokens for one in alone[number]]


def test_values_that_are_not_finite_affect_one_clip_only() -> None:
    ours = load_embedded()
    rng = np.random.default_rng(0)
    good = rng.standard_normal((20, ours.config.encoder_dim)).astype(np.float32)
    search = ours.start_beam_search(beam=4)
    search.add(["damaged", "good"], [np.full_like(good, np.nan), good], [9, 9])
    done = search.step()
    assert isinstance(done["damaged"], ModelFormatError)
    search.add(["next"], [good], [9])
    while search.keys:
        done.update(search.step())
    assert [one.tokens for one in done["good"]] == [one.tokens for one in done["next"]]
    features = rng.standard_normal((20, ours.config.audio_dim)).astype(np.float32)
    found = ours.encode_clips(None, [features, features * np.nan])
    assert found[0] is not None
    assert found[1] is None


def load_embedded() -> OnnxModel:
    return load_onnx_model(EMBEDDED_MODEL)


@pytest.mark.parametrize("position", [0.5, 0.999])
def test_damaged_weights_are_refused(position: float, tmp_path: Path) -> None:
    content = bytearray(EMBEDDED_MODEL.read_bytes())
    content[int(position * len(content))] ^= 0xFF
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    assert can_load(path)
    with pytest.raises(ModelFormatError, match="does not match its checksum"):
        load_onnx_model(path)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(EMBEDDED_MODEL.read_bytes().replace(b"encoder_layers", b"encoder_lawyers"[:14], 1))
    with pytest.raises(ModelFormatError, match="header does not match its checksum"):
        can_load(path)
    with pytest.raises(ModelFormatError, match="header does not match its checksum"):
        load_onnx_model(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("encoder.feature_extractor_video.resnet.frontend3D.0.weight", (16,)),
        ("encoder.layer_norm.weight", (7,)),
        ("decoder.embed_tokens.weight", (5, 192)),
        ("decoder.layers.0.self_attn.q_proj.weight", ()),
        ("encoder.encoder.pos_conv.0.weight_v", (192, 12, 3)),
        ("decoder.layer_norm.bias", None),
    ],
)
def test_weights_of_another_shape_are_refused(
    name: str, shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    model, path = load_model(EMBEDDED_MODEL), tmp_path / "forged.safetensors"
    state = model.network.state_dict()
    del state[name]
    if shape is not None:
        state[name] = torch.zeros(shape)
    write_model(path, state, model.config, model.tokens, None, model.card)
    assert can_load(path)
    with pytest.raises(ModelFormatError, match="not a usable model file"):
        load_onnx_model(path)


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(EMBEDDED_MODEL.read_bytes()[:100_000])
    assert not can_load(path)
    with pytest.raises(ModelFormatError, match="not a complete safetensors file"):
        load_onnx_model(path)
    with pytest.raises(ModelFormatError, match="not a complete safetensors file"):
        read_config(path)


def test_only_files_of_the_embedded_architecture_and_types_can_be_loaded(tmp_path: Path) -> None:
    assert all(map(can_load, EMBEDDED))
    path = tmp_path / "model.safetensors"
    convert(EMBEDDED_MODEL, path, dtype="float32")
    assert can_load(path)
    convert(EMBEDDED_MODEL, path, dtype="bfloat16")
    assert not can_load(path)


def test_a_folder_without_a_graph_is_named(tmp_path: Path) -> None:
    network = golden.network()
    make_onnx_model(network, tmp_path)
    (tmp_path / "encoder.onnx").unlink()
    with pytest.raises(ModelFormatError, match=r"encoder\.onnx cannot be loaded"):
        OnnxModel(
            tmp_path,
            {name: weight.numpy() for name, weight in network.state_dict().items()},
            network.config,
            golden.vocabulary(),
            {},
        )
