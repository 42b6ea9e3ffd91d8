"""``python -m training``: render synthetic speakers, train the embedded model, and evaluate a model.

python -m training prepare  [--data DIR] [--utterances N] [--workers N]
python -m training train    --out runs/x [--minutes N] [--device cpu|cuda] [--resume]
python -m training fine-tune --manifest FILE --out runs/y  (the same as `gorggle train`)
python -m training export   --out runs/x MODEL
python -m training graphs   MODEL
python -m training calibrate MODEL [--manifest FILE] [--data DIR]
python -m training clips    --out DIR [--sentences N] [--two-speakers]
python -m training evaluate MODEL [--sentences N] [--noise]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULT_DATA_FOLDER = Path("runs/data")
UTTERANCES = {"train": 14_000, "validation": 100, "test": 500}  # per corpus; the training split mixes both


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; results go to stdout, progress to stderr."""
    options = _build_parser().parse_args(arguments)
    commands = {
        "prepare": _prepare,
        "train": _train,
        "fine-tune": _fine_tune,
        "export": _export,
        "graphs": _graphs,
        "calibrate": _calibrate,
        "evaluate": _evaluate,
        "clips": _clips,
    }
    return commands[options.command](options) or 0


def _build_parser() -> argparse.ArgumentParser:
    from gorggle_training import test_set, train_command

    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train and evaluate the embedded model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="render the utterances of all three splits")
    prepare.add_argument(
        "--utterances", type=int, default=UTTERANCES["train"], help="size of the training split"
    )
    prepare.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    train = commands.add_parser(
        "train", help="train on the rendered utterances; rendering may still be running"
    )
    train.add_argument("--out", type=Path, required=True, help="run folder")
    train.add_argument("--minutes", type=float, default=60.0, help="total training time")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--init-from", type=Path, metavar="MODEL", help="model file with initial weights")
    train.add_argument("--learning-rate", type=float, default=1.5e-3, help="peak learning rate")
    train.add_argument("--resume", action="store_true", help="resume the run in the folder")
    train_command.add_arguments(
        commands.add_parser(
            "fine-tune", help="fine-tune a model on recorded clips; see `gorggle train --help`"
        )
    )
    export = commands.add_parser("export", help="write a run's model as a model file")
    export.add_argument("--out", type=Path, required=True, help="run folder")
    export.add_argument("--evaluation", type=Path, help="output of `evaluate`, for the model card")
    export.add_argument(
        "--earlier-runs",
        metavar="TEXT",
        help="for the model card: the runs that the initial weights came from",
    )
    graphs = commands.add_parser(
        "graphs", help="write the ONNX graphs of a model's architecture into the server"
    )
    graphs.add_argument("--folder", type=Path, help="default: the folder that the server reads")
    calibrate = commands.add_parser(
        "calibrate", help="fit the word confidences on held-out utterances, and write them to the model card"
    )
    calibrate.add_argument(
        "--manifest",
        type=Path,
        nargs="+",
        default=[],
        help="recorded clips that the model was not trained on",
    )
    calibrate.add_argument(
        "--cache", type=Path, default=DEFAULT_DATA_FOLDER / "clips", help="folder of cropped clips"
    )
    calibrate.add_argument(
        "--sentences", type=int, default=UTTERANCES["validation"], help="rendered ones, per corpus"
    )
    test_set.add_arguments(
        commands.add_parser("clips", help="render test clips of unseen speakers, with a manifest")
    )
    evaluate = commands.add_parser("evaluate", help="error rates on held-out speakers and sentences, as JSON")
    evaluate.add_argument("--corpus", choices=("grid", "phrases"), action="append", help="default: both")
    evaluate.add_argument("--sentences", type=int, default=UTTERANCES["test"], help="per corpus")
    evaluate.add_argument("--beam", type=int, default=5)
    evaluate.add_argument(
        "--noise",
        nargs="*",
        choices=("white", "speech-shaped", "babble"),
        help="also evaluate with noise of these kinds (default: all)",
    )
    evaluate.add_argument("--plot", type=Path, metavar="PNG", help="plot the error rates over noise")
    evaluate.add_argument("--threads", type=int, default=2)
    for command in (export, graphs, calibrate, evaluate):
        command.add_argument("model", type=Path, help="model file (.safetensors)")
    for command in (prepare, train, calibrate, evaluate):
        command.add_argument(
            "--data", type=Path, default=DEFAULT_DATA_FOLDER, help="folder of the rendered utterances"
        )
    return parser


def _prepare(options: argparse.Namespace) -> None:
    from gorggle_training.sentences import Corpus, Split
    from gorggle_training.shards import render_split

    for corpus in Corpus:
        render_split(
            options.data, Split.VALIDATION, UTTERANCES["validation"], options.workers, _report, corpus
        )
    render_split(options.data, Split.TRAIN, options.utterances, options.workers, _report)
    for corpus in Corpus:
        render_split(options.data, Split.TEST, UTTERANCES["test"], options.workers, _report, corpus)


def _train(options: argparse.Namespace) -> None:
    from gorggle_training.gorggle_mini import train_gorggle_mini
    from gorggle_training.train import TrainingOptions, keep_freed_memory

    keep_freed_memory()
    if (options.out / "state.pt").exists() and not options.resume:
        sys.exit(f"{options.out} already has a run: pass --resume to continue it, or use another folder")
    training = TrainingOptions(
        minutes=options.minutes,
        device=options.device,
        threads=options.threads,
        init_from=options.init_from,
        learning_rate=options.learning_rate,
    )
    train_gorggle_mini(options.out, options.data, training, _report)


def _fine_tune(options: argparse.Namespace) -> int:
    from gorggle_training import train_command

    return train_command.run(options, _report)


def _export(options: argparse.Namespace) -> None:
    from gorggle_training.gorggle_mini import export_model

    evaluation = json.loads(options.evaluation.read_text()) if options.evaluation else None
    export_model(options.out, options.model, evaluation, options.earlier_runs)


def _graphs(options: argparse.Namespace) -> None:
    from gorggle_server.avhubert.onnx_loading import GRAPHS, read_config
    from gorggle_training.onnx_graphs import write_graphs

    write_graphs(read_config(options.model), options.folder or GRAPHS)


def _calibrate(options: argparse.Namespace) -> None:
    from gorggle_training.clip_shards import prepare_clips
    from gorggle_training.confidence_calibration import calibrate_model_file
    from gorggle_training.labelled_clips import LabelledClip, read_manifest_clips
    from gorggle_training.sentences import Corpus, Split
    from gorggle_training.shards import UtteranceStore, render_split
    from gorggle_training.utterances import Utterance

    workers = os.cpu_count() or 1
    utterances: list[Utterance] = []
    for corpus in Corpus:
        render_split(options.data, Split.VALIDATION, options.sentences, workers, _report, corpus)
        store = UtteranceStore(options.data, Split.VALIDATION, corpus)
        utterances += store.read_all()[: options.sentences]
    clips = [clip for path in options.manifest for clip in read_manifest_clips(path)]
    if clips:
        usable = [clip for clip in clips if isinstance(clip, LabelledClip)]
        utterances += prepare_clips(usable, options.cache, workers, _report)[0].read_all()
    print(json.dumps(calibrate_model_file(options.model, utterances)))


def _clips(options: argparse.Namespace) -> None:
    from gorggle_training import test_set

    test_set.run(options, _report)


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from gorggle_evaluation.noise import NoiseKind
    from gorggle_server.avhubert import load_model
    from gorggle_training.evaluate import CLEAN, NOISY, evaluate_model
    from gorggle_training.sentences import Corpus, Split
    from gorggle_training.shards import UtteranceStore, render_split

    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    if options.plot and options.noise is None:
        sys.exit("--plot requires --noise")
    kinds = () if options.noise is None else options.noise or tuple(NoiseKind)
    conditions = (*CLEAN, *(condition for condition in NOISY if condition.noise.kind in kinds))
    measured = {}
    for corpus in map(Corpus, options.corpus or Corpus):
        render_split(options.data, Split.TEST, options.sentences, options.threads, _report, corpus)
        store = UtteranceStore(options.data, Split.TEST, corpus)
        _report(f"corpus {corpus.value}:")
        measured[corpus.value] = evaluate_model(
            model, store, conditions, options.sentences, options.beam, _report
        )
    if options.plot:
        from gorggle_training.noise_curves import plot_noise_curves

        plot_noise_curves(measured, options.plot)
    print(json.dumps(measured, indent=2))


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
