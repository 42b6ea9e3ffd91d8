"""The training loop of the embedded model, on CPU or GPU; a run can be stopped and resumed."""

from __future__ import annotations

import copy
import ctypes
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gorggle_server.avhubert import Model, load_model
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_training.dataset import Batch, BatchStream
from gorggle_training.learning_curves import MetricsLog, plot_learning_curves
from gorggle_training.loss import TrainingLoss
from gorggle_training.shards import Store

WARM_UP_SHARE = 0.04  # of the run
FINAL_LEARNING_RATE_SHARE = 0.01
AVERAGING_STEPS = 400  # window of the exponential moving average of the weights
WEIGHT_DECAY = 0.02
MAX_GRADIENT_NORM = 2.0
LOG_INTERVAL_STEPS = 20
VALIDATION_INTERVAL_MINUTES = 4.0  # a checkpoint is written as often
# With fewer, PyTorch's convolutions write past their buffers in training on processors with AVX2 alone:
# https://github.com/uxlfoundation/oneDNN/issues/6035
MIN_FRONTEND_CHANNELS = 8


@dataclass(frozen=True)
class TrainingOptions:
    """Training options.

    Attributes:
        minutes: length of the run; the learning rate decays to 1 % at its end.
        frames_per_batch: maximum of padded frames per batch.
        learning_rate: peak learning rate.
        device: "cpu" or "cuda".
        threads: maximum of PyTorch CPU threads; fewer while other programs use the cores.
        init_from: model file for the initial weights, where shapes and tokens match.
    """

    minutes: float = 60.0
    frames_per_batch: int = 640
    learning_rate: float = 1.5e-3
    device: str = "cpu"
    threads: int = 2
    init_from: Path | None = None


def small_config(vocabulary_size: int) -> ModelConfig:
    """Return the embedded model's configuration: four million parameters."""
    return ModelConfig(
        encoder_layers=4,
        encoder_dim=192,
        encoder_ffn_dim=768,
        encoder_heads=4,
        decoder_layers=2,
        decoder_dim=192,
        decoder_ffn_dim=768,
        decoder_heads=4,
        vocabulary_size=vocabulary_size,
        frontend_channels=16,
        position_kernel_size=32,
        max_target_size=256,
        # One head of the last layer is trained to attend to the token's frames; the others are free.
        alignment_heads=((1, 0),),
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.0,
        feature_dropout=0.1,
    )


class TrainingRun:
    """One run: network, optimizer, averaged weights and elapsed time, checkpointed together.

    Args:
        out: run folder; an existing checkpoint is loaded.
        validate: called with the averaged network at every checkpoint; returns named word error rates for the log.
        initial: model with the initial weights, instead of ``options.init_from``.

    Raises:
        ValueError: the network is too narrow to train, or the checkpoint is of a run with other tokens or another network.
    """

    def __init__(
        self,
        out: Path,
        store: Store,
        tokenizer: Vocabulary,
        config: ModelConfig,
        options: TrainingOptions,
        validate: Callable[[AVHubertNetwork], dict[str, float]] | None = None,
        initial: Model | None = None,
    ) -> None:
        if config.frontend_channels < MIN_FRONTEND_CHANNELS:
            raise ValueError(
                f"the model has {config.frontend_channels} frontend channels: training needs {MIN_FRONTEND_CHANNELS} or more"
            )
        self.tokenizer, self.config, self.options = tokenizer, config, options
        self._out, self._store, self._validate = out, store, validate
        out.mkdir(parents=True, exist_ok=True)
        self.log = MetricsLog(out / "metrics.jsonl")
        torch.manual_seed(0)
        network = AVHubertNetwork(config)
        if options.init_from is not None:
            initial = load_model(options.init_from)
        if initial is not None:
            load_matching_weights(network, tokenizer.tokens, initial)
        self.criterion = TrainingLoss(network, store[0].motion.shape[1]).to(options.device)
        self.averaged = copy.deepcopy(self.criterion.network).eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(_parameter_groups(self.criterion), betas=(0.9, 0.98))
        self._uses_bfloat16 = has_fast_bfloat16(options.device)
        self.steps, self.elapsed_s = 0, 0.0
        if self._state_path.exists():
            self._restore()

    @property
    def minutes(self) -> float:
        """Return the training time without interruptions and validation."""
        return self.elapsed_s / 60

    @property
    def _state_path(self) -> Path:
        return self._out / "state.pt"

    def train(self, report: Callable[[str], None], max_steps: int | None = None) -> None:
        """Train for the run's minutes (or `max_steps` steps), then save."""
        checked_at = self.minutes
        sums: dict[str, float] = {}
        # A resumed run sees different batches.
        batches = iter(BatchStream(self._store, self.tokenizer, self.options.frames_per_batch, self.steps))
        for count in itertools.count(1):
            start = time.monotonic()
            for name, value in self.step(next(batches)).items():
                sums[name] = sums.get(name, 0.0) + value
            self.elapsed_s += time.monotonic() - start
            if count % LOG_INTERVAL_STEPS == 0:
                self._log_losses(sums, report)
                sums = {}
            over = self.minutes >= self.options.minutes or count == max_steps
            if over or self.minutes - checked_at >= VALIDATION_INTERVAL_MINUTES:
                self._save_and_validate(report)
                checked_at = self.minutes
            if over:
                return

    def step(self, batch: Batch) -> dict[str, float]:
        """Run one optimizer step; return the parts of the loss."""
        batch = Batch(**{name: tensor.to(self.options.device) for name, tensor in vars(batch).items()})
        _limit_threads(self.options.threads)
        self.criterion.train()
        rate = self.learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self._uses_bfloat16):
            loss, parts = self.criterion(batch)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.criterion.parameters(), MAX_GRADIENT_NORM)
        if torch.isfinite(norm):
            self._optimizer.step()
        self.steps += 1
        _update_average(self.averaged, self.criterion.network, 1 - 1 / min(self.steps, AVERAGING_STEPS))
        return dict(parts)

    def learning_rate(self) -> float:
        """Return the learning rate: linear warm-up, then half a cosine."""
        progress = min(1.0, self.minutes / self.options.minutes)
        if progress < WARM_UP_SHARE:
            return self.options.learning_rate * max(progress / WARM_UP_SHARE, 0.01)
        falling = 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)))
        share = FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * falling
        return self.options.learning_rate * share

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "criterion": self.criterion.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "tokens": self.tokenizer.tokens,
        }
        partial = self._state_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state_path)

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(
            self._state_path, map_location=self.options.device, weights_only=True
        )
        if state["tokens"] != self.tokenizer.tokens:
            raise ValueError(
                f"{self._state_path} was trained with other tokens: start a new run in another folder"
            )
        try:
            self.criterion.load_state_dict(state["criterion"])
        except RuntimeError as error:
            raise ValueError(
                f"{self._state_path} was trained with another architecture: start a new run in another folder"
            ) from error
        self.averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps, self.elapsed_s = state["steps"], state["elapsed_s"]

    def _log_losses(self, sums: dict[str, float], report: Callable[[str], None]) -> None:
        means = {name: value / LOG_INTERVAL_STEPS for name, value in sums.items()}
        self.log.add("loss", self.minutes, means)
        parts = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        report(f"{self.minutes:6.1f} min  step {self.steps}  of {len(self._store)} utterances  {parts}")

    def _save_and_validate(self, report: Callable[[str], None]) -> None:
        self.save()
        if self._validate is not None:
            errors = self._validate(self.averaged)
            self.log.add("error", self.minutes, errors)
            report("validation: " + ", ".join(f"{name} {value:.1%}" for name, value in errors.items()))
        plot_learning_curves(self.log, self._out / "learning.png")


@torch.no_grad()
def load_matching_weights(network: AVHubertNetwork, tokens: Sequence[str], other: Model) -> None:
    """Copy the weights of another model where shapes match, and its embeddings of equal tokens."""
    weights = network.state_dict()
    embeddings = "decoder.embed_tokens.weight"
    for name, weight in other.network.state_dict().items():
        if name in weights and weights[name].shape == weight.shape and name != embeddings:
            weights[name].copy_(weight)
    rows = {token: row for row, token in enumerate(other.tokens)}
    for row, token in enumerate(tokens):
        if token in rows:
            weights[embeddings][row].copy_(other.network.state_dict()[embeddings][rows[token]])


def has_fast_bfloat16(device: str) -> bool:
    """Return whether a device computes in bfloat16 natively; a CPU needs AVX512_BF16 or AMX.

    On AVX2 alone a training step takes over a minute in bfloat16, and under two seconds in float32.
    """
    capabilities = torch.cpu.get_capabilities()
    return device != "cpu" or any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _parameter_groups(criterion: TrainingLoss) -> list[dict[str, Any]]:
    """Apply weight decay to matrices only, not to biases, norms and slopes."""
    trained = [parameter for parameter in criterion.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _update_average(averaged: AVHubertNetwork, network: AVHubertNetwork, keep: float) -> None:
    """Update the moving average of weights and batch-norm statistics."""
    for kept, now in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(now, 1 - keep)
        else:
            kept.copy_(now)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: returning it to the kernel at every step costs a third of the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        mallopt(mmap_max, 0)
        mallopt(top_pad, 256 * 2**20)
        mallopt(trim_threshold, 2**31 - 1)


def _limit_threads(max_threads: int) -> None:
    """Limit PyTorch to one thread more than there are idle cores.

    Threads synchronize often within a step: one that shares its core slows down all.
    """
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
    except OSError:  # not Linux
        return
    others = max(0, running - 1)
    threads = max(1, min(max_threads, (os.cpu_count() or 1) - others))
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
