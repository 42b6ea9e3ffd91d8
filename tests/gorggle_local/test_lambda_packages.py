"""Packages of functions and layers, as the local AWS takes them."""

from __future__ import annotations

from pathlib import Path

from gorggle_local.aws import lambda_packages


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_layer_that_lists_its_distributions_is_unzipped_as_one_that_holds_them(tmp_path: Path) -> None:
    whole = lambda_packages.build_layer_zip("base", tmp_path / "whole.zip").read_bytes()
    listed = lambda_packages.build_distributions_layer_zip("base", tmp_path / "listed.zip").read_bytes()
    assert len(listed) < 1000 < len(whole)
    found = contents(lambda_packages.unzip(listed, tmp_path / "cache"))
    assert "python/aws_lambda_powertools/__init__.py" in found
    assert found == contents(lambda_packages.unzip(whole, tmp_path / "cache"))


def test_what_was_unzipped_once_is_found_again(tmp_path: Path) -> None:
    listed = lambda_packages.build_distributions_layer_zip("base", tmp_path / "listed.zip").read_bytes()
    assert lambda_packages.unzip(listed, tmp_path / "cache") == lambda_packages.unzip(
        listed, tmp_path / "cache"
    )


def test_a_layer_that_points_to_a_built_one_is_unzipped_as_that_one(tmp_path: Path) -> None:
    built = lambda_packages.build_layer_zip("base", tmp_path / "built.zip")
    pointing = lambda_packages.build_path_layer_zip(built, tmp_path / "pointing.zip").read_bytes()
    assert len(pointing) < 1000
    found = contents(lambda_packages.unzip(pointing, tmp_path / "cache"))
    assert found == contents(lambda_packages.unzip(built.read_bytes(), tmp_path / "cache"))


def test_a_runtime_that_was_built_for_another_python_is_taken_as_it_is(tmp_path: Path) -> None:
    built = lambda_packages.build_layer_zip("base", tmp_path / "built.zip")
    folder = lambda_packages.prepare_runtime(tmp_path / "cache", built)
    assert (folder / "aws_lambda_powertools" / "__init__.py").is_file()
    assert not (folder / "boto3").exists(), "nothing of this environment"
