"""Fuzzing of model files: corruption either has no effect or raises ModelFormatError."""

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
# Positions (as fractions of the file size) and bit masks.
CORRUPTION = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3
)


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
    reference_files.save(reference_files.make_checkpoint(weights), path, is_legacy=True)
    return path


def flip_bytes(content: bytes, corruption: list[tuple[float, int]]) -> bytes:
    changed = bytearray(content)
    for position, mask in corruption:
        changed[int(position * len(changed))] ^= mask
    return bytes(changed)


def compute_digest(stored: StoredModel) -> str:
    """Return a digest of the configuration, tokenizer and weights of a model file."""
    sha256 = hashlib.sha256(repr((stored.config, stored.tokens, stored.sentencepiece_model)).encode())
    for name, weight in sorted(stored.weights.items()):
        sha256.update(f"{name}{weight.shape}{weight.dtype}".encode())
        sha256.update(weight.read().numpy().tobytes())
    return sha256.hexdigest()


def compute_fairseq_digest(path: Path) -> str:
    with fairseq_checkpoint.open_checkpoint(path) as stored:
        return compute_digest(stored)


def compute_gorggle_digest(path: Path) -> str:
    with safetensors_file.open_model(path) as stored:
        return compute_digest(stored)


@FUZZ
@given(CORRUPTION)
def test_flipped_bytes_in_a_zip_checkpoint_are_detected_or_harmless(
    tmp_path: Path, corruption: list[tuple[float, int]]
) -> None:
    path = tmp_path / "flipped.pt"
    path.write_bytes(flip_bytes(golden.CHECKPOINT_WITHOUT_RESNET.read_bytes(), corruption))
    with contextlib.suppress(ModelFormatError):
        assert compute_fairseq_digest(path) == compute_fairseq_digest(golden.CHECKPOINT_WITHOUT_RESNET)


@FUZZ
@given(CORRUPTION)
def test_flipped_bytes_in_a_model_file_are_detected_or_harmless(
    tmp_path: Path, small_file: Path, corruption: list[tuple[float, int]]
) -> None:
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(flip_bytes(small_file.read_bytes(), corruption))
    with contextlib.suppress(ModelFormatError):
        assert compute_gorggle_digest(path) == compute_gorggle_digest(small_file)


@FUZZ
@given(CORRUPTION)
def test_flipped_bytes_in_a_model_file_header_are_detected_or_harmless(
    tmp_path: Path, small_file: Path, corruption: list[tuple[float, int]]
) -> None:
    content = small_file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(flip_bytes(content[:end], corruption) + content[end:])
    with contextlib.suppress(ModelFormatError):
        assert compute_gorggle_digest(path) == compute_gorggle_digest(small_file)


@FUZZ
@given(CORRUPTION)
def test_flipped_bytes_in_a_legacy_checkpoint_raise_only_format_errors(
    tmp_path: Path, legacy_file: Path, corruption: list[tuple[float, int]]
) -> None:
    path = tmp_path / "flipped.pt"
    path.write_bytes(flip_bytes(legacy_file.read_bytes(), corruption))
    with contextlib.suppress(ModelFormatError):
        # This layout has no checksums, so changed weights cannot be detected.
        compute_fairseq_digest(path)


@settings(FUZZ, max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_rejected(
    tmp_path: Path, small_file: Path, legacy_file: Path, fraction: float
) -> None:
    path = tmp_path / "cut"
    for whole in (golden.CHECKPOINT_WITHOUT_RESNET, small_file, legacy_file):
        content = whole.read_bytes()
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ModelFormatError):
            load_model(path)


@settings(FUZZ, max_examples=400)
@given(st.binary(max_size=60))
def test_unpickling_arbitrary_bytes_raises_only_format_errors(data: bytes) -> None:
    with contextlib.suppress(ModelFormatError):
        safe_unpickler.loads(data)


@FUZZ
@given(CORRUPTION)
def test_flipped_bytes_in_a_pickle_raise_only_format_errors(corruption: list[tuple[float, int]]) -> None:
    buffer = io.BytesIO()
    torch.save(
        {"cfg": {"a": [1, 2.5, (None, True)]}, "x": torch.ones(3)},
        buffer,
        _use_new_zipfile_serialization=False,
    )
    data = buffer.getvalue()
    start = data.index(b"\x80\x02}", 40)
    with contextlib.suppress(ModelFormatError):
        safe_unpickler.loads(flip_bytes(data[start:], corruption), lambda reference: reference)


def test_a_flipped_bit_in_a_model_file_weight_is_detected(tmp_path: Path, small_file: Path) -> None:
    content = bytearray(small_file.read_bytes())
    content[-3] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="does not match its checksum"):
        load_model(path)


def test_a_flipped_bit_in_a_zip_checkpoint_weight_is_detected(tmp_path: Path, full_checkpoint: Path) -> None:
    content = bytearray(full_checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "flipped.pt"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="damaged"):
        load_model(path)


def test_zip_entries_larger_than_the_file_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("bomb/data.pkl", b"\x80\x02}." + b"\0" * 10**8)
    assert path.stat().st_size < 200_000
    with pytest.raises(ModelFormatError, match="compressed"):
        load_model(path)
    reference_files.write_zip(b"\x80\x02}.", path)
    content = path.read_bytes()
    # Set both sizes in the central directory, compressed and uncompressed, to one gigabyte.
    position = content.index(b"PK\x01\x02") + 20
    path.write_bytes(content[:position] + (2**30).to_bytes(4, "little") * 2 + content[position + 8 :])
    with pytest.raises(ModelFormatError, match=r"announce more|damaged"):
        load_model(path)
