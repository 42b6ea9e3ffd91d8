"""``gorggle train``: fine-tune a model on recorded clips.

gorggle train --manifest clips.jsonl --begin-with gorggle-mini-1 --out runs/mine
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gorggle_evaluation.manifest import ManifestError
from gorggle_server.errors import GorggleError
from gorggle_server.settings import EMBEDDED_MODEL
from gorggle_server.vision.landmark_model import LandmarkModelName

EXIT_OK, EXIT_FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; progress goes to stderr, the path of the model to stdout."""
    options = _build_parser().parse_args(arguments)
    return run(options, lambda line: print(line, file=sys.stderr, flush=True))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gorggle train",
        description="Fine-tune a model on recorded clips with known words. Needs gorggle[training].",
        epilog="The rendered utterances of --rendered are written by `python -m gorggle_training prepare`.",
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    sources = parser.add_argument_group("clips; at least one is required")
    sources.add_argument(
        "--manifest", type=Path, nargs="+", default=[], metavar="FILE", help="manifests of `gorggle evaluate`"
    )
    sources.add_argument(
        "--grid", type=Path, nargs="+", default=[], metavar="FOLDER", help="GRID corpus: sN/*.mpg and *.align"
    )
    sources.add_argument(
        "--lrs3", type=Path, nargs="+", default=[], metavar="FOLDER", help="LRS3: its pretrain and trainval"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="manifests of clips to report word error rates on during training; never trained on",
    )
    parser.add_argument(
        "--begin-with",
        default=EMBEDDED_MODEL.stem,
        metavar="MODEL",
        help="model file (.safetensors), or name of an embedded or installed model (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="run folder")
    parser.add_argument(
        "--rendered",
        type=Path,
        metavar="FOLDER",
        help="also train on rendered utterances, so that the model still transcribes them",
    )
    parser.add_argument(
        "--recorded-share",
        type=_parse_share,
        default=0.5,
        metavar="SHARE",
        help="share of recorded clips with --rendered (default: 0.5)",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="folder of the cropped clips (default: OUT/clips)"
    )
    parser.add_argument(
        "--minutes", type=_parse_positive, default=60.0, help="total training time (default: 60)"
    )
    parser.add_argument("--learning-rate", type=_parse_positive, default=5e-4, help="peak (default: 5e-4)")
    parser.add_argument(
        "--frames-per-batch",
        type=_parse_count,
        default=640,
        metavar="N",
        help="video frames per step (default: 640)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=_parse_count, default=2, help="CPU threads of PyTorch (default: 2)")
    parser.add_argument(
        "--workers",
        type=_parse_count,
        default=os.cpu_count() or 1,
        help="processes that crop clips (default: all CPUs)",
    )
    parser.add_argument(
        "--landmark-model",
        choices=[name.value for name in LandmarkModelName],
        default=LandmarkModelName.DLIB.value,
        help="model of the face landmarks that mouths are cropped by; the server's setting should be the same (default: "
        "%(default)s)",
    )
    parser.add_argument("--name", default="fine-tuned", help="name of the model, for its card")
    parser.add_argument("--resume", action="store_true", help="resume the run in the folder")


def run(options: argparse.Namespace, report: Callable[[str], None]) -> int:
    """Prepare the clips, train, and write the model; return the exit code."""
    from gorggle_training.fine_tuning import fine_tune, load_base_model, load_data
    from gorggle_training.labelled_clips import CorpusError

    try:
        if (options.out / "state.pt").exists() and not options.resume:
            raise CorpusError(
                f"{options.out} already has a run: pass --resume to continue it, or use another folder"
            )
        base = load_base_model(options.begin_with)
        data = load_data(options, base.vocabulary, report)
        path = fine_tune(base, data, options, report)
    except (GorggleError, ManifestError, CorpusError, OSError, ValueError) as error:
        print(f"gorggle train: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(path)
    return EXIT_OK


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _parse_share(text: str) -> float:
    value = _parse_positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and at most 1")
    return value


def _parse_positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
