"""Tests that packages are reproducible, match the locks, are within Lambda's limits, and run on the target."""

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
from infrastructure.packaging import build, lock, wheels, zip_archive
from infrastructure.packaging.package import Package
from infrastructure.packaging.wheels import Target
from infrastructure.packaging.zip_archive import Entry

# Packages are downloaded, which takes minutes.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".build" / "packages"
X86 = Target("x86_64", "3.12")
# https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
ELF_MAGIC = b"\x7fELF\x02\x01"
ELF_MACHINES = {"x86_64": 62, "arm64": 183}


def read_pins(text: str) -> dict[str, str]:
    """Return the versions of a lock by canonical name."""
    return {canonicalize(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}


def canonicalize(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@pytest.mark.parametrize("name", ["base", "certificates"])
def test_a_layer_is_reproducible(name: str, tmp_path: Path) -> None:
    """Two clean builds in different folders produce identical bytes."""
    digests = set()
    for folder in ("first", "second"):
        package = build.build_layer(name, X86, tmp_path / folder / "packages")
        digests.add(hashlib.sha256(package.path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_code_packages_are_reproducible_and_contain_every_handler(tmp_path: Path) -> None:
    for kind, entries in build.list_code_files(ROOT).items():
        packages = [
            zip_archive.write(tmp_path / f"{index}.zip", reversed(entries) if index else entries)
            for index in (0, 1)
        ]
        assert packages[0].path.read_bytes() == packages[1].path.read_bytes()
        with zipfile.ZipFile(packages[0].path) as archive:
            names = archive.namelist()
        assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
        manifest = function_manifest.read_manifest(
            ROOT / ("lambdas/operations" if kind == "operations" else "lambdas") / "functions.toml"
        )
        for function in manifest.functions.values():
            assert function.handler.rpartition(".")[0].replace(".", "/") + ".py" in names
        assert ("gorggle/client.py" in names) == (kind == "full")


def test_two_files_with_the_same_name_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        zip_archive.write(tmp_path / "a.zip", [Entry("a", b"1"), Entry("a", b"2")])


def test_layers_fit_the_size_limit() -> None:
    layers = {name: build.build_layer(name, X86, CACHE) for name in lock.LAYERS}
    code = build.build_code(ROOT, CACHE)
    manifest = function_manifest.read_manifest(ROOT / "lambdas/functions.toml")
    build.check_sizes(manifest, code, layers)
    total = code["full"].unpacked_bytes + layers["base"].unpacked_bytes + layers["media"].unpacked_bytes
    assert 150 * 2**20 < total < build.MAX_UNPACKED_BYTES
    with zipfile.ZipFile(layers["media"].path) as archive:
        names = set(archive.namelist())
    assert all(name.startswith("python/") for name in names)
    assert {"python/av/__init__.py", "python/grpc/__init__.py", "python/numpy/__init__.py"} <= names


@pytest.mark.parametrize("target", lock.LAMBDA_TARGETS, ids=str)
def test_libraries_of_layers_load_on_the_target(target: Target, tmp_path: Path) -> None:
    """A function that cannot load a library fails only when it is called: check architecture and glibc before."""
    libraries = 0
    for name in lock.LAYERS:
        wheels.install_wheels(lock.LOCKS / f"{name}.lock", target, tmp_path / name)
        for entry in build.list_layer_files(tmp_path / name):
            if entry.content.startswith(b"\x7fELF"):
                libraries += 1
                assert entry.content.startswith(ELF_MAGIC), f"{entry.name} is not 64-bit little-endian"
                (machine,) = struct.unpack_from("<H", entry.content, 18)
                assert machine == ELF_MACHINES[target.architecture], entry.name
                symbols = re.findall(rb"GLIBC_(\d+)\.(\d+)(?=\0)", entry.content)
                assert all((int(major), int(minor)) <= wheels.GLIBC for major, minor in symbols), entry.name
    assert libraries > 30


def test_a_function_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    manifest = function_manifest.read_manifest(ROOT / "lambdas/functions.toml")
    small, large = Package(tmp_path, "", 1), Package(tmp_path, "", build.MAX_UNPACKED_BYTES)
    with pytest.raises(ValueError, match="the limit of Lambda is 250 MiB"):
        build.check_sizes(manifest, {"thin": small, "full": small}, {"base": small, "media": large})


def test_pip_gets_every_platform_tag_of_the_target() -> None:
    tags = Target("arm64", "3.13").pip_platforms
    assert tags[0] == "manylinux_2_34_aarch64"
    assert "manylinux_2_28_aarch64" in tags
    assert tags[-1] == "manylinux2014_aarch64"


def test_the_command_prints_the_sizes_of_all_layers(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--architecture", "x86_64", "--python", "3.12"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [f"x86_64 3.12 {name}" for name in lock.LAYERS]
    assert all("of 250 MiB" in line for line in lines[3:])


def test_compiled_packages_are_locked_for_both_architectures() -> None:
    text = (lock.LOCKS / "media.lock").read_text()
    for name in ("av", "numpy", "grpcio"):
        entry = next(each for each in re.split(r"\n(?=\S)", text) if each.startswith(f"{name}=="))
        assert entry.count("--hash=") >= 2, entry


def test_scripts_tests_and_headers_are_excluded_from_layers(tmp_path: Path) -> None:
    included = {"a/b.py", "c.cpython-312-x86_64-linux-gnu.so", "a-1.dist-info/METADATA"}
    excluded = {"a/tests/c.py", "a/b.pyi", "a/include/d.h", "bin/run", "a-1.dist-info/RECORD", ".lock"}
    for name in included | excluded:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert {each.name for each in build.list_layer_files(tmp_path)} == {f"python/{each}" for each in included}


def test_locks_contain_every_requirement_with_hashes() -> None:
    locked = read_pins((lock.LOCKS / "server.lock").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {canonicalize(each) for each in project["dependencies"]}
    required |= {canonicalize(each) for each in project["optional-dependencies"]["server"]}
    # The AMI provides torch; of the other package only a data file is used.
    assert required - set(locked) == {"torch", "face-recognition-models"}
    for path in lock.LOCKS.glob("*.lock"):
        text = path.read_text()
        assert text.count("--hash=sha256:") >= len(read_pins(text)) > 0
    for name in (*lock.LAYERS, lock.RUNTIME):
        pins = read_pins((lock.LOCKS / f"{name}.lock").read_text())
        lines = (lock.LOCKS / f"{name}.in").read_text().splitlines()
        assert {canonicalize(each) for each in lines if not each.startswith("#")} <= set(pins)
    # Functions and servers run the same versions.
    for name, version in read_pins((lock.LOCKS / "media.lock").read_text()).items():
        assert locked.get(name, version) == version


def test_the_ami_has_the_torch_version_that_the_project_pins() -> None:
    from infrastructure.config import GPU_AMI_PARAMETER

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [each for each in project["optional-dependencies"]["server"] if each.startswith("torch==")]
    assert f"pytorch-{pin.removeprefix('torch==').rpartition('.')[0]}-" in GPU_AMI_PARAMETER


@pytest.mark.parametrize(
    ("function", "message"),
    [(wheels.install_wheels, "uv .*failed"), (wheels.download_wheels, "pip download .*failed")],
)
def test_a_wheel_with_another_hash_is_rejected(function: object, message: str, tmp_path: Path) -> None:
    lock_file = tmp_path / "a.lock"
    lock_file.write_text("numpy==2.4.6 --hash=sha256:" + "0" * 64 + "\n")
    assert callable(function)
    with pytest.raises(RuntimeError, match=f"(?s){message}.*numpy"):
        function(lock_file, X86, tmp_path / "wheels")
