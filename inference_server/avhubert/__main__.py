"""``python -m gorggle_server.avhubert``, also ``gorggle model``: converts and describes model files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gorggle_server.avhubert.checkpoints.loading import DTYPES, convert, info
from gorggle_server.errors import GorggleError, InvalidRequestError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 on failure, 2 on wrong usage."""
    options = _build_parser().parse_args(arguments)
    try:
        if options.command == "convert":
            _run_convert(options)
        else:
            _run_info(options)
    except (GorggleError, OSError) as error:
        print(f"gorggle: error: {error}", file=sys.stderr)
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gorggle model", description="Work with model files.")
    commands = parser.add_subparsers(dest="command", required=True)
    converting = commands.add_parser(
        "convert",
        help="convert a checkpoint to safetensors",
        description="Convert a fairseq checkpoint (or a Gorggle model file) to a safetensors file that includes the "
        "configuration, the vocabulary and the model card. No code from the checkpoint is run.",
    )
    converting.add_argument("source", metavar="IN.pt", type=Path)
    converting.add_argument("target", metavar="OUT.safetensors", type=Path)
    converting.add_argument(
        "--dtype", choices=sorted(DTYPES), help="dtype of the stored weights (default: unchanged)"
    )
    converting.add_argument(
        "--card",
        metavar="CARD.json",
        type=Path,
        help="model card: name, description, license, trained_on, error_rates, languages",
    )
    converting.add_argument("--force", action="store_true", help="overwrite an existing file")
    describing = commands.add_parser(
        "info",
        help="describe a model file",
        description="Describe a model file without building the model.",
    )
    describing.add_argument("path", metavar="PATH", type=Path)
    describing.add_argument("--json", action="store_true", help="print all fields as JSON")
    return parser


def _run_convert(options: argparse.Namespace) -> None:
    target: Path = options.target
    if target.suffix != ".safetensors":
        raise InvalidRequestError(f"the output file is {target.name}; its name must end in .safetensors")
    if target.exists() and not options.force:
        raise InvalidRequestError(f"{target} exists: use --force to overwrite it, or another name")
    if not target.parent.is_dir():
        raise InvalidRequestError(f"the output folder {target.parent} does not exist")
    convert(options.source, target, _read_card(options.card), options.dtype)
    _print_info(info(target), target)


def _read_card(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InvalidRequestError(f"the model card {path} cannot be parsed as JSON: {error}") from error
    if not isinstance(card, dict):
        raise InvalidRequestError(f"the model card {path} must be a JSON object, not a {type(card).__name__}")
    return card


def _run_info(options: argparse.Namespace) -> None:
    described = info(options.path)
    if options.json:
        print(json.dumps(described, indent=2))
    else:
        _print_info(described, options.path)


def _print_info(described: Mapping[str, Any], path: Path) -> None:
    """Print a model's description for people."""
    config, card = described["config"], described["card"]
    lines = {
        "file": f"{path} ({described['size_bytes'] / 1e6:.1f} MB, {described['layout']})",
        "name": described["name"],
        "description": card.get("description", ""),
        "parameters": f"{described['parameters'] / 1e6:.1f} million, "
        + ", ".join(f"{count} tensors in {dtype}" for dtype, count in described["dtypes"].items()),
        "encoder": f"{config['encoder_layers']} layers of width {config['encoder_dim']}",
        "decoder": f"{config['decoder_layers']} layers of width {config['decoder_dim']}",
        "vocabulary": f"{described['vocabulary_size']} tokens"
        + (", SentencePiece" if described["has_sentencepiece"] else ""),
        "modalities": ", ".join(described["modalities"]),
        "trained on": card.get("trained_on", ""),
        "license": _format_license(card.get("license")),
    }
    for name, value in lines.items():
        if value:
            print(f"{name:<12} {value}")
    for rate in card.get("error_rates", ()):
        print(
            f"{'error rate':<12} {rate['word_error_rate_percent']:.1f} % "
            f"({rate['modality']}, {rate['condition']}; {rate['dataset']})"
        )
    for problem in described["problems"]:
        print(f"{'problem':<12} {problem}")


def _format_license(entry: object) -> str:
    if not isinstance(entry, dict) or not entry.get("name"):
        return "not stated in the file: check the terms before use"
    match entry.get("commercial_use"):
        case None:
            commercial_use = "not stated"
        case permitted:
            commercial_use = "permitted" if permitted else "forbidden"
    return f"{entry['name']} (commercial use {commercial_use})"


if __name__ == "__main__":
    sys.exit(main())
