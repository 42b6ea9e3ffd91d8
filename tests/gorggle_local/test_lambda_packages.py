"""Tests of the function and layer packages of the local AWS."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gorggle_local.aws import lambda_packages
from tests.e2e.runtime import build_layer_zip


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_layer_with_a_list_of_distributions_unzips_to_the_same_files(tmp_path: Path) -> None:
    full_zip = build_layer_zip("base", tmp_path / "whole.zip").read_bytes()
    reference_zip = lambda_packages.build_reference_zip(
        lambda_packages.LAYERS["base"], tmp_path / "listed.zip"
    ).read_bytes()
    assert len(reference_zip) < 1000 < len(full_zip)
    files = read_files(lambda_packages.unzip(reference_zip, tmp_path / "cache"))
    assert "python/aws_lambda_powertools/__init__.py" in files
    assert files == read_files(lambda_packages.unzip(full_zip, tmp_path / "cache"))


def test_unzipped_packages_are_cached(tmp_path: Path) -> None:
    reference_zip = lambda_packages.build_reference_zip(
        lambda_packages.LAYERS["base"], tmp_path / "listed.zip"
    ).read_bytes()
    assert lambda_packages.unzip(reference_zip, tmp_path / "cache") == lambda_packages.unzip(
        reference_zip, tmp_path / "cache"
    )


def test_a_layer_with_a_path_unzips_to_the_built_layer(tmp_path: Path) -> None:
    built = build_layer_zip("base", tmp_path / "built.zip")
    reference_zip = lambda_packages.build_reference_zip(built, tmp_path / "pointing.zip").read_bytes()
    assert len(reference_zip) < 1000
    files = read_files(lambda_packages.unzip(reference_zip, tmp_path / "cache"))
    assert files == read_files(lambda_packages.unzip(built.read_bytes(), tmp_path / "cache"))


def test_a_built_runtime_is_used_unchanged(tmp_path: Path) -> None:
    built = build_layer_zip("base", tmp_path / "built.zip")
    folder = lambda_packages.prepare_runtime(tmp_path / "cache", built)
    assert (folder / "aws_lambda_powertools" / "__init__.py").is_file()
    assert not (folder / "boto3").exists(), "packages of this environment must not be included"


def test_concurrent_calls_unzip_the_same_package(tmp_path: Path) -> None:
    built = build_layer_zip("base", tmp_path / "built.zip").read_bytes()
    barrier = threading.Barrier(4)

    def unzip(_: int) -> Path:
        barrier.wait()
        return lambda_packages.unzip(built, tmp_path / "cache")

    with ThreadPoolExecutor(4) as executor:
        (folder,) = set(executor.map(unzip, range(4)))
    assert "python/aws_lambda_powertools/__init__.py" in read_files(folder)
    assert list((tmp_path / "cache").iterdir()) == [folder]
