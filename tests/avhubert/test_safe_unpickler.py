"""Safe unpickling: pickles that reference code are rejected before any of it runs."""

from __future__ import annotations

import builtins
import copyreg
import functools
import os
import pickle
import struct
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gorggle_server.avhubert import info, load_model
from gorggle_server.avhubert.checkpoints import safe_unpickler, torch_archive
from gorggle_server.avhubert.checkpoints.safe_unpickler import OpaqueObject
from gorggle_server.avhubert.checkpoints.tensor_storage import StorageReference, TensorRecord
from gorggle_server.errors import ModelFormatError
from tests.avhubert import reference_files


class Call:
    """Pickles as a call of an arbitrary function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return the path of a file that exists only if code from the pickle was executed."""
    return tmp_path / "executed"


def make_attacks(marker: Path) -> dict[str, object]:
    command = f"touch {marker}"
    return {
        "posix.system": Call(os.system, command),
        "builtins.eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        "builtins.getattr": Call(getattr, marker, "touch"),
        "builtins.__import__": Call(builtins.__import__, "os"),
        "subprocess.Popen|commands.Popen": Call(subprocess.Popen, command),
        "functools.partial": Call(functools.partial, os.system, command),
        "pathlib._local.Path|pathlib.Path": Call(Path, str(marker)),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b""),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "types.SimpleNamespace": Call(types.SimpleNamespace),
        "pickle.loads|_pickle.loads": Call(pickle.loads, b""),
    }


@pytest.mark.parametrize(
    "location", ["root", "model", "cfg", "task_state", "extra_state", "last_optimizer_state", "deep"]
)
@pytest.mark.parametrize("name", list(make_attacks(Path("x"))))
def test_a_function_call_anywhere_is_rejected_by_name(
    tmp_path: Path, marker: Path, name: str, location: str
) -> None:
    attack = make_attacks(marker)[name]
    checkpoint: Any = reference_files.make_checkpoint({})
    if location == "root":
        checkpoint = attack
    elif location == "deep":
        checkpoint["task_state"]["s2s_tokenizer"].hidden = {"a": [({"b": attack},)]}
    elif location == "last_optimizer_state":
        checkpoint[location]["state"][0] = attack
    else:
        checkpoint[location]["evil"] = attack
    path = tmp_path / "evil.pt"
    for is_legacy in (False, True):
        reference_files.save(checkpoint, path, is_legacy=is_legacy)
        for function in (load_model, info):
            with pytest.raises(ModelFormatError) as caught:
                function(path)
            assert any(alias in str(caught.value) for alias in name.split("|"))
            assert not marker.exists()


def shell_command(marker: Path) -> bytes:
    return f"touch {marker}".encode()


HAND_WRITTEN: dict[str, Callable[[Path], bytes]] = {
    "GLOBAL, REDUCE": lambda m: b"cposix\nsystem\n(S'" + shell_command(m) + b"'\ntR.",
    "GLOBAL of the os alias": lambda m: b"cos\nsystem\n(X" + length_prefixed(shell_command(m)) + b"tR.",
    "INST": lambda m: b"(X" + length_prefixed(shell_command(m)) + b"iposix\nsystem\n.",
    "OBJ": lambda m: b"(cposix\nsystem\nX" + length_prefixed(shell_command(m)) + b"o.",
    "STACK_GLOBAL": lambda m: (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93X" + length_prefixed(shell_command(m)) + b"\x85R."
    ),
    "STACK_GLOBAL through the memo": lambda m: (
        b"\x80\x04\x8c\x06system\x94\x8c\x05posix\x94"
        b"00h\x01h\x00\x93X" + length_prefixed(shell_command(m)) + b"\x85R."
    ),
    "a dotted name of an allowed module": lambda m: (
        b"\x80\x04\x8c\x08argparse\x8c\x0a_os.system\x93X" + length_prefixed(shell_command(m)) + b"\x85R."
    ),
    "NEWOBJ": lambda m: b"\x80\x02cposix\nsystem\nX" + length_prefixed(shell_command(m)) + b"\x85\x81.",
    "NEWOBJ_EX": lambda _: b"\x80\x04cposix\nsystem\n)}\x92.",
    "after a good object": lambda m: (
        b"\x80\x02]q\x00cposix\nsystem\nX" + length_prefixed(shell_command(m)) + b"\x85Ra."
    ),
    "a state for an inert object": lambda m: (
        b"\x80\x02cargparse\nNamespace\n)\x81}X"
        + length_prefixed(b"x")
        + b"cposix\nsystem\nX"
        + length_prefixed(shell_command(m))
        + b"\x85Rsb."
    ),
    "a key of a dict": lambda m: (
        b"\x80\x02}cposix\nsystem\nX" + length_prefixed(shell_command(m)) + b"\x85RNs."
    ),
}


def length_prefixed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("name", list(HAND_WRITTEN))
def test_every_opcode_that_loads_a_function_is_rejected(tmp_path: Path, marker: Path, name: str) -> None:
    pickled = HAND_WRITTEN[name](marker)
    path = tmp_path / "evil.pt"
    for content in ("bare", "zip"):
        if content == "bare":
            path.write_bytes(pickled)
        else:
            reference_files.write_zip(pickled, path)
        with pytest.raises(ModelFormatError, match=r"system|instruction b'S'"):
            load_model(path)
        assert not marker.exists()


@pytest.mark.parametrize(
    "code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"], ids=["EXT1", "EXT2", "EXT4"]
)
def test_extension_registry_opcodes_are_rejected(tmp_path: Path, marker: Path, code: bytes) -> None:
    copyreg.add_extension("posix", "system", 1)
    try:
        path = tmp_path / "evil.pt"
        reference_files.write_zip(
            b"\x80\x02" + code + b"X" + length_prefixed(shell_command(marker)) + b"\x85R.", path
        )
        with pytest.raises(ModelFormatError, match="instruction"):
            load_model(path)
    finally:
        copyreg.remove_extension("posix", "system", 1)
    assert not marker.exists()


INVALID_PICKLES: dict[str, bytes] = {
    "REDUCE of a record": b"cargparse\nNamespace\n)\x81)R.",
    "REDUCE of text": b"X\x01\0\0\0x)R.",
    "REDUCE with a list": b"cargparse\nNamespace\n]R.",
    "a call of a storage class": b"ctorch\nFloatStorage\n)R.",
    "a call of a type": b"c__builtin__\nlong\n)R.",
    "BUILD of a class": b"cargparse\nNamespace\n}b.",
    "BUILD of a number": b"K\x01}b.",
    "SETITEM of a list": b"]NNs.",
    "APPEND to a dict": b"}Na.",
    "an odd number of items": b"}(Nu.",
    "a list as a key": b"}]Ns.",
    "a deep tuple as a key": b"})" + b"\x85" * 200_000 + b"Ns.",
    "an empty memo": b"h\x05.",
    "STOP with nothing": b".",
    "POP from nothing": b"0.",
    "a missing MARK": b"t.",
    "TUPLE2 of one": b"N\x86.",
    "a text of four gigabytes": b"X\xff\xff\xff\xff",
    "bytes of 2^63": b"\x8e" + b"\xff" * 7 + b"\x7f.",
    "a number of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
    "text that is not UTF-8": b"X\x01\0\0\0\xff.",
    "an unknown protocol version": b"\x80\x63N.",
    "a storage without a reader": b"NQ.",
    "codecs other than latin1": b"c_codecs\nencode\nX\x01\0\0\0xX\x05\0\0\0utf-8\x86R.",
    "a tensor without a storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0)))tR.",
    "a parameter of nothing": b"ctorch._utils\n_rebuild_parameter\n(N\x89)tR.",
    "an OrderedDict of a number": b"ccollections\nOrderedDict\nK\x01\x85R.",
    "an OrderedDict of odd pairs": b"ccollections\nOrderedDict\n]]a\x85R.",
    "a class name that is a number": b"K\x01K\x02\x93.",
    "an unsupported numpy type": b"cnumpy\ndtype\nX\x02\0\0\0O8\x85R.",
    "a short numpy scalar": b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8\x85RC\x01a\x86R.",
    "a line without an end": b"cposix",
}


@pytest.mark.parametrize("name", list(INVALID_PICKLES))
def test_an_invalid_pickle_is_a_format_error(name: str) -> None:
    with pytest.raises(ModelFormatError):
        safe_unpickler.loads(INVALID_PICKLES[name])


def test_a_huge_memo_index_allocates_nothing() -> None:
    # Python's C unpickler would allocate 32 GB for this.
    assert safe_unpickler.loads(b"Nr\xff\xff\xff\x7f.") is None


def test_a_recursive_object_is_loaded() -> None:
    found = safe_unpickler.loads(b"]q\x00h\x00a.")
    assert found[0] is found


def test_building_state_does_not_modify_a_class() -> None:
    evil = b"cargparse\nNamespace\n(N}X\x01\0\0\0xK\x01stb."
    with pytest.raises(ModelFormatError, match="state"):
        safe_unpickler.loads(evil)
    assert not hasattr(OpaqueObject, "x")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_round_trip_in_every_protocol(protocol: int) -> None:
    value = {
        "text": "▁now \n 'quoted'",
        "numbers": [0, -1, 255, 256, 65536, 2**31, -(2**40), 2**70, 1.5, -0.0],
        "flags": [True, False, None],
        "nested": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]], {"": {}}),
        5: "an int as a key",
        "bytes": b"\x00\xff",
    }
    assert safe_unpickler.loads(pickle.dumps(value, protocol)) == value


def test_numpy_scalars_become_python_numbers() -> None:
    values = [np.float64(1.5), np.float32(0.25), np.int64(-3), np.bool_(True), np.uint8(200)]
    assert safe_unpickler.loads(pickle.dumps(values, 2)) == [1.5, 0.25, -3, True, 200]


def test_repeated_copies_of_a_long_list_are_rejected() -> None:
    copies = b"h\x01h\x00\x85R0" * 100_000
    items = b"]q\x00(" + b"N" * 1000 + b"e0"
    with pytest.raises(ModelFormatError, match="copies more"):
        safe_unpickler.loads(items + b"c__builtin__\nset\nq\x010" + copies + b"N.")


STORAGE = StorageReference(torch.float32, 6, lambda: bytearray(24))


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 3), (4, 1)),
        (0, (2, 3), (-3, 1)),
        (0, (-1,), (1,)),
        (0, (10**9,), (0,)),
        (2**62, (1,), (1,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2,), (1, 1)),
        (0, (1,) * 40, (1,) * 40),
        (0.0, (1,), (1,)),
        (0, ("1",), (1,)),
        (True, (1,), (1,)),
        (0, None, None),
    ],
)
def test_a_tensor_view_beyond_its_storage_is_rejected(offset: Any, shape: Any, stride: Any) -> None:
    with pytest.raises(ModelFormatError):
        TensorRecord.create(STORAGE, offset, shape, stride)


def test_a_tensor_view_within_its_storage_is_read() -> None:
    storage = StorageReference(torch.float32, 6, lambda: bytearray(torch.arange(6.0).numpy().tobytes()))
    transposed = TensorRecord.create(storage, 0, (3, 2), (1, 3)).read()
    assert transposed.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert TensorRecord.create(storage, 4, (2,), (1,)).read().tolist() == [4, 5]
    assert TensorRecord.create(storage, 5, (), ()).read().item() == 5
    assert TensorRecord.create(storage, 0, (0, 3), (3, 1)).read().shape == (0, 3)


def tensor_pickle(key: bytes, length: int, kind: bytes = b"FloatStorage") -> bytes:
    count = struct.pack("<i", length)
    reference = (
        b"(X\x07\0\0\0storagectorch\n"
        + kind
        + b"\nX"
        + length_prefixed(key)
        + b"X\x03\0\0\0cpuJ"
        + count
        + b"tQ"
    )
    return (
        b"\x80\x02}X\x05\0\0\0modelctorch._utils\n_rebuild_tensor_v2\n("
        + reference
        + b"K\0K\x02\x85K\x01\x85\x89NtRs."
    )


@pytest.mark.parametrize(("length", "stored_bytes"), [(2, 4), (2, 12), (3, 8), (2**30, 8)])
def test_a_storage_with_a_wrong_length_is_rejected(tmp_path: Path, length: int, stored_bytes: int) -> None:
    path = tmp_path / "evil.pt"
    reference_files.write_zip(tensor_pickle(b"0", length), path, {"0": b"\0" * stored_bytes})
    with torch_archive.open_checkpoint(path) as root, pytest.raises(ModelFormatError, match="storage"):
        root["model"].read()


@pytest.mark.parametrize("pickled", [tensor_pickle(b"0", -2), tensor_pickle(b"0", 2, b"QuantumStorage")])
def test_an_invalid_storage_is_rejected(tmp_path: Path, pickled: bytes) -> None:
    path = tmp_path / "evil.pt"
    reference_files.write_zip(pickled, path, {"0": b"\0" * 8})
    with pytest.raises(ModelFormatError), torch_archive.open_checkpoint(path):
        pass


def test_a_missing_storage_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    reference_files.write_zip(tensor_pickle(b"../../etc/passwd", 2), path)
    with torch_archive.open_checkpoint(path) as root, pytest.raises(ModelFormatError, match="has no"):
        root["model"].read()
