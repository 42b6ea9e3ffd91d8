"""Memory use of the inference libraries for utterances of many lengths, tested in a subprocess."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

# Configures the libraries as the server does, then encodes utterances of increasing length.
# Prints the allocated bytes after every ten utterances.
PROGRAM = """
import ctypes, gc, json
from gorggle_server.__main__ import set_up_libraries
set_up_libraries()
import numpy as np, torch
from gorggle_server.inference.model_registry import load_models
from gorggle_server.inference.interface import InferenceInput
from gorggle_server.settings import ServerSettings

class MallInfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = MallInfo
torch.set_num_threads(1)
recognizer = next(iter(load_models(ServerSettings()))).recognizer
allocated = []
for number in range(40):
    frames = 20 + 2 * number
    crops = np.zeros((frames, 96, 96), np.uint8)
    recognizer.encode([InferenceInput(crops, np.zeros((frames, 104), np.float32))])
    if number % 10 == 9:
        gc.collect()
        usage = libc.mallinfo2()
        allocated.append(usage.uordblks + usage.hblkhd)
print(json.dumps(allocated))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.libc_ver()[1] < "2.33", reason="needs mallinfo2 of glibc"
)
def test_utterances_of_new_lengths_do_not_leak_memory() -> None:
    # Inherited cache limits would replace the server's own settings.
    cache_limits = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    environment = {name: value for name, value in os.environ.items() if name not in cache_limits}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    allocated = json.loads(done.stdout)
    assert allocated[-1] - allocated[0] < 20 * 2**20, allocated
