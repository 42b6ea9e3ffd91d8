"""The committed stubs match the protos, and the protos follow the style of the API."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor, FileDescriptor

from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2, model_pb2, server_pb2, transcript_pb2

ROOT = Path(__file__).resolve().parents[2]
FILES = [config_pb2, lip_reading_pb2, media_pb2, model_pb2, server_pb2, transcript_pb2]


def test_the_committed_stubs_match_the_protos(tmp_path: Path) -> None:
    subprocess.run([ROOT / "protos" / "generate.sh", tmp_path], check=True, capture_output=True)
    generated = {path.name: path.read_text() for path in (tmp_path / "gorggle" / "v1").iterdir()}
    committed_folder = ROOT / "clients" / "python" / "gorggle" / "v1"
    committed = {path.name: path.read_text() for path in committed_folder.glob("*_pb2*")}
    assert generated.keys() == committed.keys()
    stale = [name for name in generated if generated[name] != committed[name]]
    assert not stale, f"run `make protos` and commit {stale}"


@pytest.mark.parametrize("path", sorted((ROOT / "protos").rglob("*.proto")), ids=lambda path: path.name)
def test_every_field_enum_value_and_rpc_has_a_comment(path: Path) -> None:
    is_commented = True
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        is_declaration = re.match(r"(rpc |[\w.]+ \w+ = \d+;|(repeated|optional) |[A-Z0-9_]+ = \d+;)", text)
        # Adjacent declarations share the comment above the first.
        assert not is_declaration or is_commented, f"{path.name}:{number} has no comment: {text}"
        is_commented = text.startswith("//") or (is_commented and bool(text))


def list_enums(file: FileDescriptor) -> list[EnumDescriptor]:
    enums = list(file.enum_types_by_name.values())
    for message in file.message_types_by_name.values():
        enums += message.enum_types
    return enums


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
def test_enums_have_an_unspecified_zero_and_prefixed_values(module) -> None:
    for enum in list_enums(module.DESCRIPTOR):
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
def test_durations_and_offsets_have_the_duration_type(module) -> None:
    for message in module.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            if re.search(r"(offset|duration|timestamps|uptime|idle|utterance)$", field.name):
                assert field.type == FieldDescriptor.TYPE_MESSAGE, f"{message.name}.{field.name}"
                assert field.message_type.full_name == "google.protobuf.Duration"
