"""Imports fairseq from the environment of `make parity` into this interpreter.

That environment has an older numpy than OpenCV and dlib require here; fairseq works with the newer one once the removed
aliases exist. Only fairseq and its own dependencies are imported from there.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ENVIRONMENT = Path(__file__).parents[1] / ".build" / "parity"
# fairseq and its dependencies; antlr4 may also be installed here, in a version that its omegaconf does not support.
FAIRSEQ_PACKAGES = frozenset(
    {
        *("fairseq", "omegaconf", "hydra", "antlr4", "bitarray", "sacrebleu"),
        *("portalocker", "colorama", "tabulate", "lxml", "regex", "tqdm"),
    }
)


class _FairseqFinder(importlib.abc.MetaPathFinder):
    def __init__(self, packages: str) -> None:
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or name not in FAIRSEQ_PACKAGES:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self._packages], target)


def load_fairseq() -> Any:
    """Return fairseq, or None if it is not installed; ``make parity`` installs it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = ENVIRONMENT / "lib" / version / "site-packages"
    if (packages / "fairseq").is_dir() and not sys.prefix.startswith(str(ENVIRONMENT)):
        sys.meta_path.insert(0, _FairseqFinder(str(packages)))
        for kind in (bool, int, float, object):
            if kind.__name__ not in vars(np):
                setattr(np, kind.__name__, kind)
    from tests.parity import reference_toolkit

    logging.getLogger("fairseq").setLevel(logging.ERROR)
    try:
        return reference_toolkit.import_fairseq()
    except BaseException as error:  # pytest's skip is not an Exception
        print(f"without fairseq: {error}", file=sys.stderr)
        return None
