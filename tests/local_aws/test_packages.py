"""Packages of functions and layers, as the local AWS takes them."""

from __future__ import annotations

from pathlib import Path

from local_aws import packages


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_layer_that_lists_its_distributions_is_unzipped_as_one_that_holds_them(tmp_path: Path) -> None:
    whole = packages.layer_zip("base", tmp_path / "whole.zip").read_bytes()
    listed = packages.listed_layer_zip("base", tmp_path / "listed.zip").read_bytes()
    assert len(listed) < 1000 < len(whole)
    found = contents(packages.unzipped(listed, tmp_path / "cache"))
    assert "python/aws_lambda_powertools/__init__.py" in found
    assert found == contents(packages.unzipped(whole, tmp_path / "cache"))


def test_what_was_unzipped_once_is_found_again(tmp_path: Path) -> None:
    listed = packages.listed_layer_zip("base", tmp_path / "listed.zip").read_bytes()
    assert packages.unzipped(listed, tmp_path / "cache") == packages.unzipped(listed, tmp_path / "cache")
