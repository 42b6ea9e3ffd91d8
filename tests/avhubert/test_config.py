from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest

from gorggle_server.avhubert.checkpoints.stored_model import get_weight_shapes
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.errors import ModelFormatError
from tests.avhubert import golden

LARGE = ModelConfig(24, 1024, 4096, 16, 9, 1024, 4096, 8, vocabulary_size=1000)
BASE = ModelConfig(12, 768, 3072, 12, 6, 768, 3072, 4, vocabulary_size=1000)


def count_millions(config: ModelConfig, prefix: str = "") -> float:
    """Return the number of parameters in millions."""
    return (
        sum(prod(shape) for name, shape in get_weight_shapes(config).items() if name.startswith(prefix)) / 1e6
    )


def test_the_large_model_has_the_published_parameter_count() -> None:
    assert count_millions(LARGE) == pytest.approx(477, abs=0.5)
    assert count_millions(LARGE, "encoder.") == pytest.approx(325, abs=0.5)
    assert count_millions(LARGE, "decoder.") == pytest.approx(152, abs=0.5)
    frontend = count_millions(LARGE, "encoder.feature_extractor_video") - (512 + 1) * 1024 / 1e6
    assert frontend == pytest.approx(11.2, abs=0.1)


def test_the_base_model_has_the_published_parameter_count() -> None:
    assert count_millions(BASE) == pytest.approx(160, abs=5)
    assert count_millions(BASE, "encoder.") == pytest.approx(103, abs=2)


def test_frontend_channels_scale_the_resnet_trunk() -> None:
    narrow = ModelConfig(**{**golden.CONFIG.to_dict(), "frontend_channels": 16})
    shapes = get_weight_shapes(narrow)
    assert shapes["encoder.feature_extractor_video.resnet.trunk.layer4.1.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["encoder.feature_extractor_video.proj.weight"] == (64, 128)
    assert get_weight_shapes(golden.CONFIG)["encoder.feature_extractor_video.proj.weight"] == (64, 512)


def test_weight_names_and_shapes_match_the_reference() -> None:
    expected = {
        name: tuple(tensor.shape) for name, tensor in golden.state().items() if "num_batches" not in name
    }
    assert get_weight_shapes(golden.CONFIG) == expected


def test_a_configuration_round_trips_through_json() -> None:
    config = ModelConfig(**{**golden.CONFIG.to_dict(), "alignment_heads": ((1, 0), (0, 3)), "dropout": 0.1})
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_layers": 0}, "encoder_layers is 0; expected an integer from 1 to 256"),
        ({"encoder_layers": 10**6}, "from 1 to 256"),
        ({"encoder_dim": "64"}, "encoder_dim is '64'"),
        ({"encoder_dim": True}, "encoder_dim is True"),
        ({"encoder_heads": 5}, "encoder_dim = 64 is not divisible by encoder_heads = 5"),
        ({"decoder_dim": 65, "decoder_heads": 5}, "is not divisible"),
        ({"position_groups": 7}, "is not divisible"),
        ({"vocabulary_size": 3}, "4 reserved tokens"),
        ({"share_embeddings": 1}, "share_embeddings is 1"),
        ({"modalities": ["smell"]}, "modalities is"),
        ({"modalities": []}, "modalities is"),
        ({"alignment_heads": [[2, 0]]}, r"alignment head \(2, 0\) does not exist"),
        ({"alignment_heads": [[0, 0.5]]}, "alignment_heads is"),
        ({"alignment_heads": [[0]]}, "malformed"),
        ({"alignment_heads": 3}, "malformed"),
        ({"dropout": 1}, "dropout is 1; expected a rate"),
        ({"dropout": "0.1"}, "dropout is '0.1'"),
        ({"colour": "red"}, r"unknown fields \['colour'\]"),
    ],
)
def test_an_invalid_configuration_is_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        ModelConfig.from_dict({**golden.CONFIG.to_dict(), **change})


def test_a_configuration_with_a_missing_field_is_rejected() -> None:
    values = golden.CONFIG.to_dict()
    del values["decoder_dim"]
    with pytest.raises(ModelFormatError, match="decoder_dim"):
        ModelConfig.from_dict(values)
