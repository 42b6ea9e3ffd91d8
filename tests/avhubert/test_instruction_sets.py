"""Runs the numerical tests with older instruction sets than the native one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("test_golden.py", "test_optimization.py", "test_word_alignment.py", "test_invariants.py")
# The kernels of torch itself and those of oneDNN are selected separately.
INSTRUCTION_SETS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE 4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2 in oneDNN only": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}


@pytest.mark.drill
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="requires x86-64")
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_numerical_tests_pass_with_the_instruction_set(name: str) -> None:
    tests = [str(Path(__file__).with_name(file)) for file in FILES]
    tests += [
        str(Path(__file__).with_name("test_loading.py")) + "::test_bfloat16_output_is_close_to_float32",
        str(Path(__file__).with_name("test_model.py")) + "::test_configured_alignment_heads_are_averaged",
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "--no-header", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, **INSTRUCTION_SETS[name]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
