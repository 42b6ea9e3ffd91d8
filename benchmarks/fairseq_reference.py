"""fairseq beside our own packages, in one interpreter: it is borrowed from the environment that `make parity` makes.

That environment has an older numpy, which OpenCV and dlib here would not bear; fairseq itself runs with the newer one
once the names that numpy has dropped are there again. So only fairseq, and what only fairseq needs, comes from there.
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
# fairseq and its needs; of these antlr4 alone may be here too, in a version that its omegaconf cannot read.
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
    """fairseq, or None where it is not installed; ``make parity`` installs it."""
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
        return reference_toolkit.imported()
    except BaseException as error:  # pytest's skip is no Exception
        print(f"without fairseq: {error}", file=sys.stderr)
        return None
