"""Speed of the engine: front-end, encoder and beam search, compared with fairseq's modules in the same process.

    python -m benchmarks.engine --models large --beams 20,50
        python -m benchmarks.engine --int8 --baseline float32

For other weight types (``--int8``, ``--dtype``) the baseline can be our own network in float32, which finds the same
tokens as fairseq in less time. Every figure is the minimum over repetitions, ours and the baseline in turn; with one
thread it is CPU time, which is less affected by other programs, otherwise wall time. A stage's floor is the time of its
operations or of its memory traffic, whichever is longer, at the machine's peak rates (``benchmarks.hardware``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import hardware
from benchmarks.engine_models import ModelPair, build_pair, ignore_warnings, make_fairseq_search
from benchmarks.fairseq_reference import load_fairseq
from gorggle_server.avhubert import AVHubertNetwork
from gorggle_server.avhubert.beam_search import BeamSearch, beam_search

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print a table, write JSON."""
    options = _parse_args(arguments)
    torch.set_num_threads(options.threads)
    fairseq = load_fairseq() if options.baseline == "fairseq" else None
    rows: list[dict[str, Any]] = []
    began, tried_on = time.time(), _describe_run(options)
    RESULTS.mkdir(exist_ok=True)
    out = options.out or RESULTS / "engine.json"
    with torch.inference_mode(), ignore_warnings():
        for name in options.models.split(","):
            made = build_pair(
                name,
                fairseq,
                int8=options.int8,
                dtype=getattr(torch, options.dtype),
                device=options.device,
                with_float32=options.baseline == "float32",
            )
            for row in _measure_stages(name, made, fairseq, options):
                rows.append(row)
                _print_row(row)
                # After every row: an interrupted run keeps its results.
                measured = {"machine": tried_on, "took_s": time.time() - began, "rows": rows}
                out.write_text(json.dumps(measured, indent=1))
            del made
    print(f"written to {out}")


def _parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="embedded,base,large")
    parser.add_argument("--beams", default="1,5,20,50")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--tokens", type=int, default=40, help="length of the hypotheses")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--utterances", type=int, default=16, help="batch size compared with sequential runs")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--baseline", default="fairseq", choices=["fairseq", "float32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--stages", default="frontend,encoder,search,batch")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def _measure_stages(name: str, made: ModelPair, fairseq: Any, options: argparse.Namespace) -> Any:
    frames = round(options.seconds * 25)
    torch.manual_seed(1)
    dtype = getattr(torch, options.dtype)
    stages = options.stages.split(",")
    if "frontend" in stages:
        yield _measure_frontend(name, made, torch.randn(1, frames, 88, 88).to(options.device), dtype, options)
    encoder_in = torch.randn(1, frames, made.ours.config.encoder_dim).to(options.device)
    if "encoder" in stages:
        yield _measure_encoder(name, made, encoder_in, dtype, options)
    if "search" in stages:
        for beam in map(int, options.beams.split(",")):
            yield _measure_search(name, made, fairseq, encoder_in, beam, dtype, options)
    if "batch" in stages:
        yield _measure_batch(name, made, dtype, options)


def _measure_frontend(
    name: str, made: ModelPair, video: torch.Tensor, dtype: torch.dtype, options: argparse.Namespace
) -> Any:
    ours_in = video.to(dtype)
    frontend = made.float32.encoder.feature_extractor_video if made.float32 else made.frontend
    ours, theirs, found, expected = _time_both(
        lambda: made.ours.encoder.feature_extractor_video(ours_in), lambda: frontend(video), options
    )
    macs = _frontend_macs(made.ours.config.frontend_channels) * video.shape[1]
    return _make_row(
        name,
        "front-end",
        ours,
        theirs,
        _max_difference(found, expected),
        _baseline_name(made, "plain torch"),
        2 * macs,
    )


def _measure_encoder(
    name: str, made: ModelPair, x: torch.Tensor, dtype: torch.dtype, options: argparse.Namespace
) -> Any:
    mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    ours_in = x.to(dtype)
    encoder = made.encoder
    theirs_of = None if encoder is None else (lambda: encoder(x.clone(), padding_mask=mask)[0])
    if (usual := made.float32) is not None:
        theirs_of = lambda: usual.encoder.encoder(x, None)  # noqa: E731
    ours, theirs, found, expected = _time_both(
        lambda: made.ours.encoder.encoder(ours_in, None), theirs_of, options
    )
    config, frames = made.ours.config, x.shape[1]
    dim = config.encoder_dim
    macs = frames * (
        config.encoder_layers * (4 * dim**2 + 2 * dim * config.encoder_ffn_dim + 2 * dim * frames)
        + dim**2 // config.position_groups * config.position_kernel_size
    )
    return _make_row(
        name,
        "encoder",
        ours,
        theirs,
        _max_difference(found, expected),
        _baseline_name(made, "fairseq"),
        2 * macs,
    )


def _measure_search(
    name: str,
    made: ModelPair,
    fairseq: Any,
    x: torch.Tensor,
    beam: int,
    dtype: torch.dtype,
    options: argparse.Namespace,
) -> Any:
    ours_in = x.to(dtype)

    def search(network: AVHubertNetwork, encoded: torch.Tensor) -> list[list[int]]:
        running = BeamSearch(network.decoder, beam=beam, length_penalty=1.0)
        return [one.tokens for one in beam_search(running, encoded, None, limits=[options.tokens])[0]]

    theirs_of = None
    if (usual := made.float32) is not None:
        theirs_of = lambda: search(usual, x)  # noqa: E731
    if fairseq is not None:
        generator, sample = make_fairseq_search(fairseq, made, beam, options.tokens, x)
        theirs_of = lambda: [one["tokens"].tolist() for one in generator.generate([], sample)[0]]  # noqa: E731
    ours, theirs, found, expected = _time_both(lambda: search(made.ours, ours_in), theirs_of, options)
    config, frames = made.ours.config, x.shape[1]
    dim = config.decoder_dim
    steps = max(map(len, found))
    per_row = config.decoder_layers * (6 * dim**2 + 2 * dim * config.decoder_ffn_dim + 2 * dim * frames)
    macs = steps * beam * (per_row + dim * config.vocabulary_size)
    macs += config.decoder_layers * frames * 2 * dim * config.encoder_dim
    row = _make_row(
        name, f"beam search, beam {beam}", ours, theirs, None, _baseline_name(made, "fairseq"), 2 * macs
    )
    # Each step reads the weights, and the clip's keys and values, once for all hypotheses.
    numbers = config.decoder_layers * (6 * dim**2 + 2 * dim * config.decoder_ffn_dim + 2 * dim * frames)
    bytes_a_number = 1 if options.int8 else torch.finfo(dtype).bits // 8
    row["gigabytes"] = steps * (numbers + dim * config.vocabulary_size) * bytes_a_number / 1e9
    row["steps"] = steps
    row["tokens_identical"] = None if expected is None else found == expected
    return row


def _measure_batch(name: str, made: ModelPair, dtype: torch.dtype, options: argparse.Namespace) -> Any:
    """Measure utterances of two to four seconds, crops to tokens at beam 5: as a batch, and sequentially."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 101, options.utterances).tolist()
    videos = [torch.randn(1, frames, 88, 88).to(options.device) for frames in lengths]
    longest = max(lengths)
    mask = (torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]).to(options.device)
    units = [8 + frames // 5 for frames in lengths]

    def read(
        network: AVHubertNetwork, video: torch.Tensor, padded: torch.Tensor | None, limits: list[int]
    ) -> list[list[int]]:
        running = BeamSearch(network.decoder, beam=5, length_penalty=1.0)
        found = beam_search(running, network.encode(video, None, padded), padded, limits=limits)
        return [of_clip[0].tokens for of_clip in found]

    def together(network: AVHubertNetwork, dtype: torch.dtype) -> list[list[int]]:
        video = torch.zeros(len(lengths), longest, 88, 88, dtype=dtype, device=options.device)
        for row, clip in zip(video, videos, strict=True):
            row[: clip.shape[1]] = clip[0]
        return read(network, video, mask, units)

    def one_by_one() -> list[list[int]]:
        return [
            read(made.ours, video.to(dtype), None, [limit])[0]
            for video, limit in zip(videos, units, strict=True)
        ]

    usual = made.float32
    ours, theirs, found, expected = _time_both(
        lambda: together(made.ours, dtype),
        one_by_one if usual is None else lambda: together(usual, torch.float32),
        options,
    )
    row = _make_row(
        name, f"{len(lengths)} utterances", ours, theirs, None, _baseline_name(made, "sequential"), None
    )
    row["tokens_identical"] = found == expected
    row["media_s"] = sum(lengths) / 25
    return row


def _baseline_name(made: ModelPair, other: str) -> str:
    return other if made.float32 is None else "float32"


def _time_both(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, options: argparse.Namespace
) -> tuple[float, float | None, Any, Any]:
    """Return the minimum time of each, run in turn, and their results."""
    clock = hardware.select_clock()
    best: list[float | None] = [None, None]
    given: list[Any] = [None, None]
    for _ in range(options.repeats):
        for place, call in enumerate((ours, theirs)):
            if call is None:
                continue
            began = clock()
            given[place] = call()
            if options.device == "cuda":
                torch.cuda.synchronize()
            took = clock() - began
            before = best[place]
            best[place] = took if before is None else min(before, took)
    assert best[0] is not None
    return best[0], best[1], given[0], given[1]


def _make_row(
    model: str,
    stage: str,
    ours: float,
    theirs: float | None,
    max_difference: float | None,
    baseline: str,
    flop: float | None,
) -> dict[str, Any]:
    return {
        "model": model,
        "stage": stage,
        "ours_s": ours,
        "theirs_s": theirs,
        "ratio": None if theirs is None else theirs / ours,
        "baseline": baseline,
        "largest_difference": max_difference,
        "gflop": None if flop is None else flop / 1e9,
    }


def _frontend_macs(channels: int) -> float:
    """Return the multiply-accumulates of one frame of 88x88: the stem, then four stages of two blocks."""
    macs = channels * 44 * 44 * 5 * 7 * 7
    before = channels
    for stage, side in enumerate((22, 11, 6, 3)):
        width = channels * 2**stage
        macs += side**2 * (9 * (before * width + 3 * width**2) + (before * width if stage else 0))
        before = width
    return macs


def _max_difference(found: torch.Tensor, expected: torch.Tensor | None) -> float | None:
    return None if expected is None else float((found.float() - expected.float()).abs().max())


def _describe_run(options: argparse.Namespace) -> dict[str, Any]:
    return {
        **hardware.describe_machine(options.threads),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "dtype": "int8 weights" if options.int8 else options.dtype,
        "clip_s": options.seconds,
        "tokens": options.tokens,
        "repeats": options.repeats,
    }


def _print_row(row: dict[str, Any]) -> None:
    ratio = (
        "" if row["ratio"] is None else f"{row['ratio']:6.2f} x {row['baseline']} ({row['theirs_s']:.3f} s)"
    )
    same = {True: "tokens identical", False: "TOKENS DIFFER", None: ""}[row.get("tokens_identical")]
    print(f"{row['model']:9} {row['stage']:22} {row['ours_s']:8.3f} s  {ratio} {same}", flush=True)


if __name__ == "__main__":
    main()
