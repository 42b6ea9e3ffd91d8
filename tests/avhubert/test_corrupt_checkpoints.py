"""Files with flipped bytes and cut-off files: either nothing changed, or a ModelFormatError."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gorggle_server.avhubert import load_model, save_model
from gorggle_server.avhubert.checkpoints import fairseq_checkpoint, safe_unpickler, safetensors_file
from gorggle_server.avhubert.checkpoints.stored_model import StoredModel
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.errors import ModelFormatError
from tests.avhubert import golden, reference_files
from tests.avhubert.test_loading import CARD, SMALL

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
# Where and what: places are fractions of the file, so that one strategy serves all sizes.
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    torch.manual_seed(1)
    save_model(
        AVHubertNetwork(SMALL), SMALL, golden.vocabulary().tokens, b"a SentencePiece model", CARD, path
    )
    return path


@pytest.fixture(scope="module")
def legacy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("legacy") / "legacy.pt"
    weights = {name: tensor for name, tensor in golden.reference_state().items() if ".resnet." not in name}
    reference_files.save(reference_files.root(weights), path, is_legacy=True)
    return path


def flipped(content: bytes, damage: list[tuple[float, int]]) -> bytes:
    changed = bytearray(content)
    for place, bits in damage:
        changed[int(place * len(changed))] ^= bits
    return bytes(changed)


def digest(stored: StoredModel) -> str:
    """Of all that a file holds: two files of the same digest are the same model."""
    total = hashlib.sha256(repr((stored.config, stored.tokens, stored.sentencepiece_model)).encode())
    for name, weight in sorted(stored.weights.items()):
        total.update(f"{name}{weight.shape}{weight.dtype}".encode())
        total.update(weight.read().numpy().tobytes())
    return total.hexdigest()


def of_reference(path: Path) -> str:
    with fairseq_checkpoint.open_checkpoint(path) as stored:
        return digest(stored)


def of_ours(path: Path) -> str:
    with safetensors_file.open_model(path) as stored:
        return digest(stored)


@FUZZ
@given(DAMAGE)
def test_flipped_bytes_in_a_zip_checkpoint_are_noticed_or_harmless(
    tmp_path: Path, damage: list[tuple[float, int]]
) -> None:
    path = tmp_path / "flipped.pt"
    path.write_bytes(flipped(golden.CHECKPOINT_WITHOUT_RESNET.read_bytes(), damage))
    with contextlib.suppress(ModelFormatError):
        assert of_reference(path) == of_reference(golden.CHECKPOINT_WITHOUT_RESNET)


@FUZZ
@given(DAMAGE)
def test_flipped_bytes_in_our_file_are_noticed_or_harmless(
    tmp_path: Path, small_file: Path, damage: list[tuple[float, int]]
) -> None:
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(flipped(small_file.read_bytes(), damage))
    with contextlib.suppress(ModelFormatError):
        assert of_ours(path) == of_ours(small_file)


@FUZZ
@given(DAMAGE)
def test_flipped_bytes_in_the_header_of_our_file_are_noticed(
    tmp_path: Path, small_file: Path, damage: list[tuple[float, int]]
) -> None:
    content = small_file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(flipped(content[:end], damage) + content[end:])
    with contextlib.suppress(ModelFormatError):
        assert of_ours(path) == of_ours(small_file)


@FUZZ
@given(DAMAGE)
def test_flipped_bytes_in_a_legacy_checkpoint_give_numbers_or_a_format_error(
    tmp_path: Path, legacy_file: Path, damage: list[tuple[float, int]]
) -> None:
    path = tmp_path / "flipped.pt"
    path.write_bytes(flipped(legacy_file.read_bytes(), damage))
    with contextlib.suppress(ModelFormatError):
        # This layout has no checksums: other numbers cannot be noticed.
        of_reference(path)


@settings(FUZZ, max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_refused(
    tmp_path: Path, small_file: Path, legacy_file: Path, share: float
) -> None:
    path = tmp_path / "cut"
    for whole in (golden.CHECKPOINT_WITHOUT_RESNET, small_file, legacy_file):
        content = whole.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ModelFormatError):
            load_model(path)


@settings(FUZZ, max_examples=400)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(ModelFormatError):
        safe_unpickler.loads(data)


@FUZZ
@given(DAMAGE)
def test_flipped_bytes_in_a_pickle_give_a_value_or_a_format_error(damage: list[tuple[float, int]]) -> None:
    buffer = io.BytesIO()
    torch.save(
        {"cfg": {"a": [1, 2.5, (None, True)]}, "x": torch.ones(3)},
        buffer,
        _use_new_zipfile_serialization=False,
    )
    data = buffer.getvalue()
    start = data.index(b"\x80\x02}", 40)
    with contextlib.suppress(ModelFormatError):
        safe_unpickler.loads(flipped(data[start:], damage), lambda reference: reference)


def test_one_flipped_bit_of_a_weight_is_noticed(tmp_path: Path, small_file: Path) -> None:
    content = bytearray(small_file.read_bytes())
    content[-3] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="does not match its checksum"):
        load_model(path)


def test_a_flipped_bit_of_a_zip_checkpoints_weight_is_noticed(tmp_path: Path, full_checkpoint: Path) -> None:
    content = bytearray(full_checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "flipped.pt"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="damaged"):
        load_model(path)


def test_entries_that_announce_more_than_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("bomb/data.pkl", b"\x80\x02}." + b"\0" * 10**8)
    assert path.stat().st_size < 200_000
    with pytest.raises(ModelFormatError, match="compressed"):
        load_model(path)
    reference_files.zip_of(b"\x80\x02}.", path)
    content = path.read_bytes()
    # The central directory's sizes, stored and real, both raised to a gigabyte.
    place = content.index(b"PK\x01\x02") + 20
    path.write_bytes(content[:place] + (2**30).to_bytes(4, "little") * 2 + content[place + 8 :])
    with pytest.raises(ModelFormatError, match=r"announce more|damaged"):
        load_model(path)
