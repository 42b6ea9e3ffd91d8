"""The committed code is what the protos generate, and the protos keep to the API's style."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor, FileDescriptor

from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2, model_pb2, server_pb2, transcript_pb2

ROOT = Path(__file__).resolve().parents[2]
FILES = [config_pb2, lip_reading_pb2, media_pb2, model_pb2, server_pb2, transcript_pb2]


def test_the_committed_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    subprocess.run([ROOT / "protos" / "generate.sh", tmp_path], check=True, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "gorggle" / "v1").iterdir()}
    committed_folder = ROOT / "clients" / "python" / "gorggle" / "v1"
    committed = {path.name: path.read_text() for path in committed_folder.glob("*_pb2*")}
    assert fresh.keys() == committed.keys()
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, f"run `make protos` and commit {stale}"


@pytest.mark.parametrize("path", sorted((ROOT / "protos").rglob("*.proto")), ids=lambda path: path.name)
def test_every_field_value_and_call_is_commented(path: Path) -> None:
    commented = True
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        declares = re.match(r"(rpc |[\w.]+ \w+ = \d+;|(repeated|optional) |[A-Z0-9_]+ = \d+;)", text)
        # Fields of one kind that stand together share the comment above the first.
        assert not declares or commented, f"{path.name}:{number} has no comment: {text}"
        commented = text.startswith("//") or (commented and bool(text))


def every_enum(file: FileDescriptor) -> list[EnumDescriptor]:
    found = list(file.enum_types_by_name.values())
    for message in file.message_types_by_name.values():
        found += message.enum_types
    return found


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
def test_enums_have_an_unspecified_zero_and_prefixed_values(module) -> None:
    for enum in every_enum(module.DESCRIPTOR):
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
def test_times_are_durations(module) -> None:
    for message in module.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            if re.search(r"(offset|duration|timestamps|uptime|idle|utterance)$", field.name):
                assert field.type == FieldDescriptor.TYPE_MESSAGE, f"{message.name}.{field.name}"
                assert field.message_type.full_name == "google.protobuf.Duration"
