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
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import hardware
from benchmarks.command import RESULTS, make_parser
from benchmarks.engine_models import ModelPair, build_pair, make_fairseq_search
from benchmarks.fairseq_reference import load_fairseq
from gorggle_server.avhubert import AVHubertNetwork
from gorggle_server.avhubert.beam_search import BeamSearch, beam_search


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print a table, write JSON."""
    options = _parse_args(arguments)
    torch.set_num_threads(options.threads)
    fairseq = load_fairseq() if options.baseline == "fairseq" else None
    rows: list[dict[str, Any]] = []
    began, tried_on = time.time(), _describe_run(options)
    options.out.parent.mkdir(exist_ok=True)
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
        for name in options.models.split(","):
            for row in StageBenchmark(name, fairseq, options).measure():
                rows.append(row)
                _print_row(row)
                # After every row: an interrupted run keeps its results.
                measured = {"machine": tried_on, "took_s": time.time() - began, "rows": rows}
                options.out.write_text(json.dumps(measured, indent=1))
    print(f"written to {options.out}")


def _parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, RESULTS / "engine.json")
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
    return parser.parse_args(arguments)


class StageBenchmark:
    """The stages of one model; each measurement is a row of the results."""

    def __init__(self, name: str, fairseq: Any, options: argparse.Namespace) -> None:
        self._name, self._fairseq, self._options = name, fairseq, options
        self._dtype: torch.dtype = getattr(torch, options.dtype)
        self._made: ModelPair = build_pair(
            name,
            fairseq,
            int8=options.int8,
            dtype=self._dtype,
            device=options.device,
            with_float32=options.baseline == "float32",
        )
        self._ours, self._float32 = self._made.ours, self._made.float32

    def measure(self) -> Iterator[dict[str, Any]]:
        """Measure the selected stages."""
        options = self._options
        frames, stages = round(options.seconds * 25), options.stages.split(",")
        torch.manual_seed(1)
        if "frontend" in stages:
            yield self._measure_frontend(torch.randn(1, frames, 88, 88).to(options.device))
        x = torch.randn(1, frames, self._ours.config.encoder_dim).to(options.device)
        if "encoder" in stages:
            yield self._measure_encoder(x)
        if "search" in stages:
            for beam in map(int, options.beams.split(",")):
                yield self._measure_search(x, beam)
        if "batch" in stages:
            yield self._measure_batch()

    def _measure_frontend(self, video: torch.Tensor) -> dict[str, Any]:
        ours_in = video.to(self._dtype)
        frontend = self._float32.encoder.feature_extractor_video if self._float32 else self._made.frontend
        row, found, expected = self._compare(
            "front-end",
            lambda: self._ours.encoder.feature_extractor_video(ours_in),
            lambda: frontend(video),
            "plain torch",
        )
        macs = _frontend_macs(self._ours.config.frontend_channels) * video.shape[1]
        return row | {"largest_difference": _max_difference(found, expected), "gflop": 2 * macs / 1e9}

    def _measure_encoder(self, x: torch.Tensor) -> dict[str, Any]:
        mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        ours_in, encoder, usual = x.to(self._dtype), self._made.encoder, self._float32
        theirs = None if encoder is None else (lambda: encoder(x.clone(), padding_mask=mask)[0])
        if usual is not None:
            theirs = lambda: usual.encoder.encoder(x, None)  # noqa: E731
        row, found, expected = self._compare(
            "encoder", lambda: self._ours.encoder.encoder(ours_in, None), theirs, "fairseq"
        )
        config, frames = self._ours.config, x.shape[1]
        dim = config.encoder_dim
        macs = frames * (
            config.encoder_layers * (4 * dim**2 + 2 * dim * config.encoder_ffn_dim + 2 * dim * frames)
            + dim**2 // config.position_groups * config.position_kernel_size
        )
        return row | {"largest_difference": _max_difference(found, expected), "gflop": 2 * macs / 1e9}

    def _measure_search(self, x: torch.Tensor, beam: int) -> dict[str, Any]:
        ours_in, usual, limit = x.to(self._dtype), self._float32, self._options.tokens

        def search(network: AVHubertNetwork, encoded: torch.Tensor) -> list[list[int]]:
            running = BeamSearch(network.decoder, beam=beam, length_penalty=1.0)
            return [one.tokens for one in beam_search(running, encoded, None, limits=[limit])[0]]

        theirs = None if usual is None else (lambda: search(usual, x))
        if self._fairseq is not None:
            generator, sample = make_fairseq_search(self._fairseq, self._made, beam, limit, x)
            theirs = lambda: [one["tokens"].tolist() for one in generator.generate([], sample)[0]]  # noqa: E731
        row, found, expected = self._compare(
            f"beam search, beam {beam}", lambda: search(self._ours, ours_in), theirs, "fairseq"
        )
        config, frames = self._ours.config, x.shape[1]
        dim, steps = config.decoder_dim, max(map(len, found))
        # Each step reads the weights, and the clip's keys and values, once for all hypotheses.
        numbers = config.decoder_layers * (6 * dim**2 + 2 * dim * config.decoder_ffn_dim + 2 * dim * frames)
        numbers += dim * config.vocabulary_size
        macs = steps * beam * numbers + config.decoder_layers * frames * 2 * dim * config.encoder_dim
        bytes_a_number = 1 if self._options.int8 else torch.finfo(self._dtype).bits // 8
        return row | {
            "gflop": 2 * macs / 1e9,
            "gigabytes": steps * numbers * bytes_a_number / 1e9,
            "steps": steps,
            "tokens_identical": None if expected is None else found == expected,
        }

    def _measure_batch(self) -> dict[str, Any]:
        """Measure utterances of two to four seconds, crops to tokens at beam 5: as a batch, and sequentially."""
        options, usual = self._options, self._float32
        lengths = np.random.default_rng(0).integers(50, 101, options.utterances).tolist()
        videos = [torch.randn(1, frames, 88, 88).to(options.device) for frames in lengths]
        longest = max(lengths)
        mask = (torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]).to(options.device)
        limits = [8 + frames // 5 for frames in lengths]

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
            return read(network, video, mask, limits)

        def one_by_one() -> list[list[int]]:
            return [
                read(self._ours, video.to(self._dtype), None, [limit])[0]
                for video, limit in zip(videos, limits, strict=True)
            ]

        row, found, expected = self._compare(
            f"{len(lengths)} utterances",
            lambda: together(self._ours, self._dtype),
            one_by_one if usual is None else lambda: together(usual, torch.float32),
            "sequential",
        )
        return row | {"tokens_identical": found == expected, "media_s": sum(lengths) / 25}

    def _compare(
        self, stage: str, ours: Callable[[], Any], theirs: Callable[[], Any] | None, baseline: str
    ) -> tuple[dict[str, Any], Any, Any]:
        """Return a row with the minimum time of each, run in turn, and their results."""
        clock = hardware.select_clock()
        calls = {"ours_s": ours, "theirs_s": theirs}
        best: dict[str, float | None] = dict.fromkeys(calls)
        given: dict[str, Any] = dict.fromkeys(calls)
        for _ in range(self._options.repeats):
            for side, call in calls.items():
                if call is None:
                    continue
                began = clock()
                given[side] = call()
                if self._options.device == "cuda":
                    torch.cuda.synchronize()
                took, before = clock() - began, best[side]
                best[side] = took if before is None else min(before, took)
        row = {
            "model": self._name,
            "stage": stage,
            **best,
            "ratio": None if theirs is None else best["theirs_s"] / best["ours_s"],
            "baseline": baseline if self._float32 is None else "float32",
            "largest_difference": None,
            "gflop": None,
        }
        return row, given["ours_s"], given["theirs_s"]


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
