"""onnxruntime against torch on the embedded model: ``python -m benchmarks.backends``.

Both run the same clips in turn, torch with all its optimizations, and their hypotheses are compared. Minimum over repetitions,
in CPU time of the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.command import RESULTS, make_parser
from benchmarks.hardware import describe_machine
from gorggle_server.avhubert import Hypothesis, load_model
from gorggle_server.avhubert.onnx_loading import load_onnx_model
from gorggle_server.settings import EMBEDDED_MODEL

SECONDS = (1, 3, 10)
SEARCHES = ((1, 1), (1, 5), (4, 5), (16, 5), (1, 20))
TOKENS = 40

# Loads the model in a new process; prints seconds and peak memory in megabytes.
LOADING = r"""
import re, time
began = time.perf_counter()
{statement}
taken_s = time.perf_counter() - began
kilobytes = re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]
print(taken_s, int(kilobytes) / 1024)
"""
STATEMENTS = {
    "onnxruntime": "from gorggle_server.avhubert.onnx_loading import load_onnx_model as load; load({path!r})",
    "torch": "from gorggle_server.avhubert import load_model as load; load({path!r}).optimize()",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = make_parser(__doc__, RESULTS / "backends.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    models = {
        "onnxruntime": load_onnx_model(EMBEDDED_MODEL, options.threads),
        "torch": load_model(EMBEDDED_MODEL).optimize(),
    }
    rows = [*measure_encoder(models, options.repeats), *measure_search(models, options.repeats)]
    for row in rows:
        print(f"{row['stage']:40} {row['onnxruntime_s']:9.4f} s {row['torch_s']:9.4f} s  {row['ratio']:.2f}x")
    loading = {name: measure_loading(name) for name in STATEMENTS}
    print(loading)
    measured = {"machine": describe_machine(options.threads), "rows": rows, "loading": loading}
    options.out.write_text(json.dumps(measured, indent=1))


def measure_encoder(models: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
    """Measure front-ends and encoder on one clip."""
    rng = np.random.default_rng(0)
    rows = []
    for seconds in SECONDS:
        frames = 25 * seconds
        crops = [rng.integers(0, 256, (frames, 88, 88)).astype(np.uint8)]
        features = [rng.standard_normal((frames, 104)).astype(np.float32)]
        for stage, clip in (("lips and audio", (crops, features)), ("audio", (None, features))):
            tasks = {name: partial(model.encode_clips, *clip) for name, model in models.items()}
            rows.append({"stage": f"encoder, {stage}, {seconds} s", **compare(tasks, repeats)})
    return rows


def measure_search(models: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
    """Measure beam searches over batches of clips of three seconds, per step."""
    rng = np.random.default_rng(0)
    rows = []
    for clips, beam in SEARCHES:
        features = [rng.standard_normal((75, 104)).astype(np.float32) for _ in range(clips)]
        encoded = models["torch"].encode_clips(None, features)
        inputs = {"torch": encoded, "onnxruntime": [clip.numpy() for clip in encoded]}
        found = {name: search(model, inputs[name], beam) for name, model in models.items()}
        tasks = {name: partial(search, model, inputs[name], beam) for name, model in models.items()}
        rows.append(
            {
                "stage": f"beam search, {clips} clips, beam {beam}",
                "tokens_identical": found["torch"] == found["onnxruntime"],
                **compare(tasks, repeats),
            }
        )
    return rows


def search(model: Any, clips: list[Any], beam: int) -> list[list[list[int]]]:
    """Return the tokens of all hypotheses of each clip."""
    running, found = model.start_beam_search(beam=beam), {}
    running.add(range(len(clips)), clips, [TOKENS] * len(clips))
    while running.keys:
        found.update(running.step())
    hypotheses: list[list[Hypothesis]] = [found[number] for number in range(len(clips))]
    return [[hypothesis.tokens for hypothesis in of_clip] for of_clip in hypotheses]


def compare(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Run the tasks in turn; return the minimum CPU time of each, and how many times faster the first is."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            if repeat:  # the first run prepares kernels
                taken[name].append(time.process_time() - began)
    best = {f"{name}_s": min(times) for name, times in taken.items()}
    return {**best, "ratio": best["torch_s"] / best["onnxruntime_s"]}


def measure_loading(name: str) -> dict[str, float]:
    """Measure the time to load a model in a new process, and the peak memory of the process."""
    program = LOADING.format(statement=STATEMENTS[name].format(path=str(EMBEDDED_MODEL)))
    runs = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        for _ in range(3)
    ]
    figures = [tuple(map(float, run.stdout.split())) for run in runs]
    return {"seconds": min(seconds for seconds, _ in figures), "megabytes": min(size for _, size in figures)}


if __name__ == "__main__":
    main()
