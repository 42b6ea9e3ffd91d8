"""The catalogue file: complete, consistent entries."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from gorggle_server.model_catalogue.catalogue import CatalogueModel, apply_mirror, load_catalogue
from gorggle_server.model_catalogue.download import check_url
from gorggle_server.settings import EMBEDDED_MODEL, MOONSHINE_MODEL

MODELS = list(load_catalogue().values())
HOSTS = {"avhubert": "dl.fbaipublicfiles.com", "faster-whisper": "huggingface.co"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_what_its_engine_loads(model: CatalogueModel) -> None:
    # Names become folders and arguments.
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", model.name)
    assert model.description
    assert model.languages
    check_url(model.license.url)
    if model.is_embedded:
        assert not model.files
        assert model.name == MOONSHINE_MODEL or EMBEDDED_MODEL.with_stem(model.name).exists()
        return
    for file in model.files:
        check_url(file.url)
        assert urlsplit(file.url).hostname == HOSTS[model.engine]
        assert "/" not in file.name
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    names = {file.name for file in model.files}
    if model.engine == "avhubert":
        assert len(names) == 1
    else:
        assert {"config.json", "model.bin", "tokenizer.json"} < names
        assert model.size_bytes is not None
        # A branch could change under the published hashes.
        assert re.search(r"/resolve/[0-9a-f]{40}/", model.files[0].url)


def test_the_default_model_is_in_the_catalogue() -> None:
    assert load_catalogue()[EMBEDDED_MODEL.stem].is_embedded


def test_the_official_weights_forbid_commercial_use() -> None:
    official = [model for model in MODELS if model.name.startswith("avhubert-")]
    assert len(official) == 14
    assert not any(model.license.commercial_use for model in official)


def test_a_mirror_has_a_folder_for_each_host() -> None:
    url = "https://dl.fbaipublicfiles.com/avhubert/model/a.pt"
    mirrored = "https://mirror.example/models/dl.fbaipublicfiles.com/avhubert/model/a.pt"
    assert apply_mirror(url, "https://mirror.example/models/") == mirrored
    assert apply_mirror(url, None) == url
