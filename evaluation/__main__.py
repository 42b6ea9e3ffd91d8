"""``gorggle evaluate``, also ``python -m gorggle_evaluation``: measure a model on clips with known transcripts."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from gorggle.cli.output import print_error, write_atomically
from gorggle.cli.server_args import (
    CommandError,
    ServerHandle,
    UsageError,
    add_server_options,
    check_server_options,
)
from gorggle.errors import GorggleError
from gorggle.version import get_version

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
# Time for a server to load its models.
READY_TIMEOUT_S = 60.0
_PACKAGES = ("numpy", "av", "jiwer", "matplotlib", "grpcio")

_EPILOG = """\
manifest: JSON Lines, one object per line; only media and text are required:
  {"media": "a.mp4", "text": "bin blue at f", "words": [{"text": "bin", "start_s": 0.52, "end_s": 0.81}, ...]}
  {"media": "b.mp4", "sentences": [{"text": "hello", "speaker": "ann", "start_s": 1.0, "end_s": 1.4}, ...],
   "id": "b", "group": "dialogues"}
or CSV with the columns media,text. Paths are relative to the manifest.

examples:
  gorggle evaluate manifest.jsonl
  gorggle evaluate manifest.jsonl --noise babble white --snr -10 0 10 --out results/
  gorggle evaluate manifest.jsonl --modality video --model avhubert-large --server gpu-host:50051 --ca ca.pem --jobs 8

Words are compared after: {normalisation}.
The exit code is 0 if every clip was transcribed, 1 if a clip failed, 2 for wrong arguments, 130 after Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _build_parser()
    options = parser.parse_args(arguments)
    command_line = list(sys.argv[1:] if arguments is None else arguments)
    try:
        check_server_options(options)
        return EXIT_OK if _evaluate(options, command_line) else EXIT_FAILED
    except UsageError as error:
        parser.exit(EXIT_USAGE, f"gorggle evaluate: error: {error}\n")
    except (CommandError, GorggleError) as error:
        print_error(error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _build_parser() -> argparse.ArgumentParser:
    from gorggle_evaluation.conditions import DEFAULT_SNRS_DB, MODALITIES
    from gorggle_evaluation.noise import NoiseKind
    from gorggle_evaluation.text_normalization import DESCRIPTION

    parser = argparse.ArgumentParser(
        prog="gorggle evaluate",
        # argparse would print MANIFEST last, after the values of --modality.
        usage="gorggle evaluate MANIFEST [--modality av video audio] [--noise babble ...] [--out FOLDER] [options]",
        description="Measure a model on clips with known transcripts: word error rate, word times, speakers, noise.",
        epilog=_EPILOG.replace("{normalisation}", DESCRIPTION),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help="clips and their reference transcripts"
    )
    parser.add_argument(
        "--modality",
        nargs="+",
        choices=MODALITIES,
        default=list(MODALITIES),
        help="model inputs: audio and video (av), video only, audio only (default: all three)",
    )
    parser.add_argument(
        "--noise",
        nargs="+",
        choices=[kind.value for kind in NoiseKind],
        default=[],
        help="also mix noise into the audio; babble consists of other clips of the manifest",
    )
    parser.add_argument(
        "--snr",
        nargs="+",
        type=_parse_decibels,
        metavar="DB",
        help=f"signal-to-noise ratios (default: {' '.join(f'{snr:g}' for snr in DEFAULT_SNRS_DB)})",
    )
    parser.add_argument("--model", metavar="NAME", help="model to measure (default: the server's)")
    parser.add_argument(
        "--audio-model",
        metavar="NAME",
        help="second model, which recognizes the audio as well; none: no second model (default: the server's)",
    )
    parser.add_argument("--beam-size", type=_parse_count, default=0, metavar="N", help="beam search width")
    parser.add_argument(
        "--jobs", type=_parse_count, default=1, metavar="N", help="clips transcribed in parallel (default: 1)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write results.json, clips.jsonl and plots"
    )
    parser.add_argument("--limit", type=_parse_count, metavar="N", help="transcribe only the first N clips")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of noise and confidence intervals (default: 0)"
    )
    parser.add_argument(
        "--lexicon",
        type=Path,
        metavar="TSV",
        help="pronunciations: word, tab, phonemes (IPA or ARPAbet) separated by spaces; adds viseme confusions",
    )
    add_server_options(parser)
    return parser


def _evaluate(options: argparse.Namespace, command_line: list[str]) -> bool:
    """Measure and report; return whether every clip was transcribed."""
    from gorggle_evaluation.conditions import DEFAULT_SNRS_DB, NoiseMixer, build_conditions
    from gorggle_evaluation.manifest import ManifestError, read_manifest
    from gorggle_evaluation.noise import NoiseKind
    from gorggle_evaluation.report_table import format_tables
    from gorggle_evaluation.results import summarize_condition
    from gorggle_evaluation.runner import show_progress, transcribe_clips
    from gorggle_evaluation.transcriber import Transcriber
    from gorggle_evaluation.visemes import LexiconError, read_lexicon

    if options.snr and not options.noise:
        raise UsageError("--snr requires --noise")
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}: expected a whole number of 0 or more")
    try:
        manifest = read_manifest(options.manifest)
        lexicon = None if options.lexicon is None else read_lexicon(options.lexicon)
    except (ManifestError, LexiconError) as error:
        raise CommandError(str(error)) from error
    _prepare_output(options.out)
    kinds = [kind for kind in NoiseKind if kind.value in options.noise]
    conditions = build_conditions(options.modality, kinds, sorted(set(options.snr or DEFAULT_SNRS_DB)))
    entries = manifest.entries[: options.limit]
    start = time.monotonic()
    with ServerHandle(options) as server:
        client = server.client()
        run = _describe_run(client, options, manifest, len(entries), command_line)
        transcriber = Transcriber(client, options.model, options.audio_model, options.beam_size)
        mixer = NoiseMixer(manifest.entries, options.seed)
        run["voices_in_babble"] = mixer.voices_in_babble if NoiseKind.BABBLE in kinds else None
        with show_progress(len(entries) * len(conditions)) as on_result:
            clips = transcribe_clips(transcriber, entries, conditions, mixer, options.jobs, on_result)
    run["took_s"] = round(time.monotonic() - start, 1)
    results = [summarize_condition(one, lexicon, options.seed) for one in clips]
    sys.stdout.write(f"{_format_heading(run)}\n\n{format_tables(results)}")
    if options.out is not None:
        _write_results(options.out, run, results, clips)
    return not any(result.failures for result in results)


def _prepare_output(folder: Path | None) -> None:
    """Create the output folder and check its requirements before the measurement starts."""
    if folder is None:
        return
    # Fails here if matplotlib is not installed.
    import_module("gorggle_evaluation.plots")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {folder} cannot be created: {(error.strerror or str(error)).lower()}"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {folder} is not writable")


def _describe_run(
    client: Any, options: argparse.Namespace, manifest: Any, clips: int, command_line: list[str]
) -> dict[str, Any]:
    """Describe the run so that it can be repeated: model, server, manifest, options and versions."""
    from gorggle_evaluation.text_normalization import DESCRIPTION

    server = client.wait_until_ready(READY_TIMEOUT_S)
    model = client.model(options.model)
    max_beam_size = server.limits.max_beam_size
    if max_beam_size and options.beam_size > max_beam_size:
        raise UsageError(f"--beam-size is {options.beam_size}: this server allows at most {max_beam_size}")
    return {
        "command": ["gorggle", "evaluate", *command_line],
        "began_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "parameters": model.parameter_count,
            "description": model.description,
        },
        "server": {
            "address": options.server or "local server of this run",
            "version": server.version,
            "device": server.device,
        },
        "manifest": {
            "path": str(options.manifest),
            "sha256": manifest.sha256,
            "clips": len(manifest.entries),
            "clips_read": clips,
        },
        "options": {
            "audio_model": options.audio_model,
            "beam": options.beam_size or "model default",
            "seed": options.seed,
            "jobs": options.jobs,
            "lexicon": None if options.lexicon is None else str(options.lexicon),
        },
        "normalisation": DESCRIPTION,
        "versions": {
            "python": platform.python_version(),
            "gorggle": get_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def _format_heading(run: dict[str, Any]) -> str:
    model, server, manifest = run["model"], run["server"], run["manifest"]
    checksum = f" (sha256 {model['sha256'][:12]}…)" if model["sha256"] else ""
    voices = run["voices_in_babble"]
    babble = "" if voices is None else f"\nbabble consists of {voices} other clip{'s' if voices != 1 else ''}"
    second = run["options"]["audio_model"]
    return (
        f"model {model['name']}{checksum}{f' with {second}' if second else ''}, server {server['version']} on {server['device']}, "
        f"{manifest['clips_read']} of the {manifest['clips']} clips of {manifest['path']}\n"
        f"words are compared after: {run['normalisation']}{babble}"
    )


def _write_results(folder: Path, run: dict[str, Any], results: Any, clips: Any) -> None:
    """Write results.json, clips.jsonl and the plots."""
    from gorggle_evaluation.plots import write_plots
    from gorggle_evaluation.results import clip_to_json, condition_to_json

    try:
        plots = write_plots(results, folder)
        lines = (
            json.dumps(clip_to_json(one), ensure_ascii=False) for condition in clips for one in condition
        )
        write_atomically(folder / "clips.jsonl", "".join(f"{line}\n" for line in lines))
        document = {
            **run,
            "conditions": [condition_to_json(result) for result in results],
            "plots": [path.name for path in plots],
        }
        write_atomically(folder / "results.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise CommandError(f"cannot write into {folder}: {(error.strerror or str(error)).lower()}") from error
    names = ", ".join(["results.json", "clips.jsonl", *(path.name for path in plots)])
    sys.stdout.write(f"\nwritten to {folder}: {names}\n")


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _parse_decibels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -100 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of decibels from -100 to 100")
    return value


if __name__ == "__main__":
    sys.exit(main())
