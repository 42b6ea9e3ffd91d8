"""The server with embedded models neither needs nor imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gorggle_server.errors import InvalidRequestError
from gorggle_server.inference.model_registry import load_models
from gorggle_server.settings import EMBEDDED_MODEL, ServerSettings
from tests.avhubert import golden

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.mp4"

# A finder that comes first makes `import torch` fail, as where it is not installed.
WITHOUT_TORCH = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
"""


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH + program, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)


SERVER = """
import asyncio
from gorggle import Client
from gorggle_server.grpc_server.server import serve
from gorggle_server.settings import ServerSettings

async def main(settings, media):
    ready, stop = asyncio.Event(), asyncio.Event()
    addresses = []
    def report_ready(address, http_address):
        addresses.append(address)
        ready.set()
    server = asyncio.create_task(serve(settings, report_ready, stop))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({server, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        await server
    transcript = await asyncio.to_thread(transcribe, addresses[0], media)
    print(transcript)
    stop.set()
    await server

def transcribe(address, media):
    with Client(address) as client:
        return ' '.join(segment.text for segment in client.transcribe(media))
"""


def test_the_embedded_models_are_served_without_torch() -> None:
    program = SERVER + "asyncio.run(main(ServerSettings(listen='127.0.0.1:0'), sys.argv[1]))"
    done = run_program(program, str(DEMO))
    assert done.returncode == 0, done.stderr
    sentences = json.loads((ROOT / "examples" / "demo.json").read_text())["sentences"]
    reference = {word for sentence in sentences for word in sentence["text"].split()}
    found = {word.strip(".,?!").lower() for word in done.stdout.split()}
    assert len(reference & found) > 0.8 * len(reference), done.stdout


def test_torch_is_not_imported_where_it_is_installed() -> None:
    program = (
        "import sys; from gorggle_server.grpc_server import server; "
        "from gorggle_server.inference.model_registry import load_models; "
        "[model.recognizer.warm_up() for model in load_models(server.ServerSettings())]; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_models_that_need_torch_say_so(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(golden.CHECKPOINT_WITHOUT_RESNET.read_bytes())
    program = (
        "from gorggle_server.inference.model_registry import load_models\n"
        "from gorggle_server.settings import ServerSettings\n"
        "from gorggle_server.errors import GorggleError\n"
        "try:\n    load_models(ServerSettings(default_model=sys.argv[1]))\n"
        "except GorggleError as error:\n    print(error)\n"
    )
    done = run_program(program, str(path))
    assert f"{path} needs torch, which is not installed" in done.stdout, done.stderr


def test_a_missing_model_file_is_named_before_its_library() -> None:
    program = (
        "from gorggle_server.inference.model_registry import load_models\n"
        "from gorggle_server.settings import ServerSettings\n"
        "from gorggle_server.errors import NotFoundError\n"
        "try:\n    load_models(ServerSettings(default_model='/missing.safetensors'))\n"
        "except NotFoundError as error:\n    print(error)\n"
    )
    assert "model file /missing.safetensors does not exist" in run_program(program).stdout


@pytest.mark.parametrize("change", [{"quantization": "int8"}, {"dtype": "bfloat16"}])
def test_onnxruntime_is_refused_where_it_cannot_compute(change: dict[str, str]) -> None:
    settings = ServerSettings.model_validate({"backend": "onnxruntime", **change})
    with pytest.raises(InvalidRequestError, match=r"backend is onnxruntime.*needs torch"):
        load_models(settings)


@pytest.mark.parametrize(
    ("backend", "module"),
    [("auto", "onnx_model"), ("onnxruntime", "onnx_model"), ("torch", "model")],
)
def test_the_backend_can_be_selected(backend: str, module: str) -> None:
    models = load_models(ServerSettings.model_validate({"backend": backend}))
    recognizer = models[EMBEDDED_MODEL.stem].recognizer
    assert type(recognizer.model).__module__ == f"gorggle_server.avhubert.{module}"  # type: ignore[attr-defined]
