"""Packages: the same bytes each time, of what the locks say, small enough, and for the right machine."""

from __future__ import annotations

import hashlib
import re
import struct
import tomllib
import zipfile
from pathlib import Path

import pytest

from infrastructure import function_manifest
from infrastructure.packaging import __main__ as command
from infrastructure.packaging import build, elf, lock, wheels, zip_archive
from infrastructure.packaging.package import Package
from infrastructure.packaging.wheels import Target
from infrastructure.packaging.zip_archive import Entry
from tests.locks import build_folder_lock

# Packages are downloaded.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".build" / "packages"
X86 = Target("x86_64", "3.12")


def library(machine: int = 62, needs: bytes = b"GLIBC_2.17") -> bytes:
    """An ELF file with one version that it needs: header, section table, names, needs."""
    names = b"\0" + needs + b"\0"
    need = struct.pack("<HHIII", 1, 1, 0, 16, 0) + struct.pack("<IHHII", 0, 0, 2, 1, 0)
    body = 64 + 3 * 64
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, 64, 0, 64, 0, 0, 64, 3, 0)
    sections = b"\0" * 64
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, body, len(names), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 0, 0x6FFFFFFE, 0, 0, body + len(names), len(need), 1, 1, 4, 0)
    return header + sections + names + need


@pytest.mark.parametrize("name", ["base", "certificates"])
def test_a_layer_is_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    """Built from nothing twice, in two folders: downloads, unpacking and all."""
    digests = set()
    for folder in ("first", "second"):
        made = build.layer(name, X86, tmp_path / folder / "packages")
        digests.add(hashlib.sha256(made.path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_code_is_the_same_bytes_each_time_and_holds_what_it_is_named_for(tmp_path: Path) -> None:
    for kind, entries in build.code_entries(ROOT):
        listed = list(entries)
        made = [
            zip_archive.write(tmp_path / f"{index}.zip", reversed(listed) if index else listed)
            for index in (0, 1)
        ]
        assert made[0].path.read_bytes() == made[1].path.read_bytes()
        with zipfile.ZipFile(made[0].path) as opened:
            names = opened.namelist()
        assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
        handlers = function_manifest.read_manifest(
            ROOT / ("lambdas/operations" if kind == "operations" else "lambdas") / "functions.toml"
        )
        for function in handlers.functions.values():
            assert function.handler.rpartition(".")[0].replace(".", "/") + ".py" in names
        assert ("gorggle/client.py" in names) == (kind == "full")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        zip_archive.write(tmp_path / "a.zip", [Entry("a", b"1"), Entry("a", b"2")])


def test_layers_load_on_lambda_and_leave_room(tmp_path: Path) -> None:
    with build_folder_lock():
        layers = {name: build.layer(name, X86, KEPT) for name in lock.LAYERS}
    code = {
        name: zip_archive.write(tmp_path / f"code-{name}.zip", list(entries))
        for name, entries in build.code_entries(ROOT)
    }
    functions = function_manifest.read_manifest(ROOT / "lambdas/functions.toml")
    build.check_sizes(functions, code, layers)
    total = code["full"].unpacked_bytes + layers["base"].unpacked_bytes + layers["media"].unpacked_bytes
    assert 150 * 2**20 < total < build.MAX_UNPACKED_BYTES
    with zipfile.ZipFile(layers["media"].path) as opened:
        names = opened.namelist()
        libraries = [name for name in names if elf.is_elf(opened.open(name).read(4))]
    assert len(libraries) > 30
    assert all(name.startswith("python/") for name in names)
    assert {"python/av/__init__.py", "python/grpc/__init__.py", "python/numpy/__init__.py"} <= set(names)


def test_a_function_that_is_too_large_is_refused(tmp_path: Path) -> None:
    functions = function_manifest.read_manifest(ROOT / "lambdas/functions.toml")
    small, large = Package(tmp_path, "", 1), Package(tmp_path, "", build.MAX_UNPACKED_BYTES)
    with pytest.raises(ValueError, match="Lambda takes 250 MiB"):
        build.check_sizes(functions, {"thin": small, "full": small}, {"base": small, "media": large})


def test_a_library_for_another_processor_is_refused() -> None:
    build.check_library(Entry("a.so", library()), X86)
    with pytest.raises(ValueError, match="is for arm64"):
        build.check_library(Entry("a.so", library(machine=183)), X86)
    with pytest.raises(ValueError, match="machine 8"):
        elf.machine(library(machine=8))


def test_a_library_for_a_newer_glibc_is_refused() -> None:
    assert elf.glibc(library(needs=b"GLIBC_2.34")) == (2, 34)
    with pytest.raises(ValueError, match=r"needs glibc 2\.35"):
        build.check_library(Entry("a.so", library(needs=b"GLIBC_2.35")), X86)


def test_this_interpreter_s_own_libraries_are_understood() -> None:
    import _ctypes

    content = Path(_ctypes.__file__).read_bytes()
    assert (2, 2) <= elf.glibc(content) < (2, 60)
    assert elf.machine(content) == {"x86_64": "x86_64", "aarch64": "arm64"}[__import__("platform").machine()]


def test_pip_is_told_every_tag_that_runs_there() -> None:
    tags = Target("arm64", "3.13").platforms
    assert tags[0] == "manylinux_2_34_aarch64"
    assert "manylinux_2_28_aarch64" in tags
    assert tags[-1] == "manylinux2014_aarch64"


def test_layers_for_the_other_processor_are_planned_from_the_same_locks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`make layers` builds them; this looks at what it would ask for."""
    command.main(["--plan", "--architecture", "arm64"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(lock.LAYERS) * 2, "for each Python"
    for line in lines:
        words = line.split()
        assert {"--only-binary=:all:", "--require-hashes", "--no-deps"} <= set(words)
        platforms = [word for word in words if word.startswith("--platform=")]
        assert {"--platform=manylinux_2_34_aarch64", "--platform=manylinux2014_aarch64"} <= set(platforms)
        assert all(platform.endswith("aarch64") for platform in platforms)
        lock_text = Path(words[-1]).read_text()
        for name in wheels.locked_versions(lock_text):
            entry = next(
                each
                for each in re.split(r"\n(?=\S)", lock_text)
                if wheels.canonicalize_name(each).startswith(f"{name}==")
            )
            assert "--hash=sha256:" in entry, name


def test_compiled_packages_are_locked_for_both_processors() -> None:
    """One hash for each processor and Python, but for what has one wheel for all."""
    lock_text = (lock.LOCKS / "media.lock").read_text()
    for name in ("av", "numpy", "grpcio"):
        entry = next(each for each in re.split(r"\n(?=\S)", lock_text) if each.startswith(f"{name}=="))
        assert entry.count("--hash=") >= 2, entry


def test_a_layer_is_looked_into(tmp_path: Path) -> None:
    made = zip_archive.write(
        tmp_path / "layer.zip",
        [Entry("a.so", library()), Entry("b.so", library(needs=b"GLIBC_2.28")), Entry("c.py", b"")],
    )
    assert command.contents(made) == command.Contents(2, (2, 28))


def test_a_wheel_s_scripts_tests_and_headers_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        for name in (
            "a/b.py",
            "a/tests/c.py",
            "a/b.pyi",
            "a/include/d.h",
            "a-1.data/scripts/run",
            "a-1.data/purelib/e.py",
            "a-1.dist-info/RECORD",
            "a-1.dist-info/METADATA",
        ):
            made.writestr(name, name)
    assert {each.name for each in wheels.unpacked(path, "python")} == {
        "python/a/b.py",
        "python/e.py",
        "python/a-1.dist-info/METADATA",
    }


def test_the_locks_are_of_what_the_project_asks_for() -> None:
    """Every requirement of the server is locked, and each lock holds hashes for all its packages."""
    locked = wheels.locked_versions((lock.LOCKS / "server.lock").read_text())
    wanted = {lock._name(each) for each in lock.server_requirements(ROOT)}
    assert wanted <= set(locked)
    assert "torch" not in locked
    for path in lock.LOCKS.glob("*.lock"):
        text = path.read_text()
        assert text.count("--hash=sha256:") >= len(wheels.locked_versions(text)) > 0
    layers = {name: wheels.locked_versions((lock.LOCKS / f"{name}.lock").read_text()) for name in lock.LAYERS}
    for name, requirements in lock.LAYERS.items():
        assert {lock._name(each) for each in requirements} <= set(layers[name])
    # What is in two places is the same there, or functions would differ from servers.
    for name, version in layers["media"].items():
        assert locked.get(name, version) == version


def test_the_image_s_torch_is_the_one_that_the_project_pins() -> None:
    from infrastructure.config import GPU_AMI_PARAMETER

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [each for each in project["optional-dependencies"]["server"] if each.startswith("torch==")]
    assert f"pytorch-{pin.removeprefix('torch==').rpartition('.')[0]}-" in GPU_AMI_PARAMETER


def test_a_missing_wheel_is_named(tmp_path: Path) -> None:
    lock_file = tmp_path / "a.lock"
    lock_file.write_text("numpy==2.4.6 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(RuntimeError, match="pip download failed"):
        wheels.download(lock_file, X86, tmp_path / "wheels")
