"""Recovery of a session after its inference server is killed and restarted."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gorggle_evaluation.text_normalization import normalize_words
from tests.clips import remux
from tests.gateway.conftest import running_gateway
from tests.gateway.recordings import EXAMPLES

pytestmark = pytest.mark.timeout(300)


class Server:
    """A ``gorggle serve`` subprocess that keeps its port across restarts."""

    def __init__(self) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{sock.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "gorggle_server", "--listen", self.address, "--num-threads", "1"]
        self.process = subprocess.Popen(
            [*command, "--print-ready", "--exit-on-stdin-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert b"listening" in self.process.stdout.readline()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def test_no_sentence_is_lost_when_the_server_is_killed_and_restarted(tmp_path: Path) -> None:
    media = remux(EXAMPLES / "demo.mp4", tmp_path / "demo.mkv", "matroska", live="1").read_bytes()
    reference = json.loads((EXAMPLES / "demo.json").read_text())
    server = Server()
    server.start()

    async def transcribe() -> list[str]:
        async with running_gateway(server.address) as gateway, gateway.session() as live:
            await live.send_all(media[: len(media) // 2], step=16_384)
            while True:
                message = await live.receive_until("segment")
                if message["is_final"]:
                    break
            await asyncio.to_thread(server.kill)
            await live.receive_until("recovering")
            start_task = asyncio.create_task(asyncio.to_thread(server.start))
            await live.receive_until("recovered")
            await start_task
            await live.send_all(media[len(media) // 2 :], step=16_384)
            await live.send_message({"type": "stop"})
            await live.receive_all()
            return live.final_texts()

    try:
        texts = asyncio.run(asyncio.wait_for(transcribe(), 240))
    finally:
        server.kill()
    assert len(texts) == len(reference["sentences"]), texts
    for text, sentence in zip(texts, reference["sentences"], strict=True):
        words = {word["text"] for word in sentence["words"]}
        assert len(words & set(normalize_words(text))) >= len(words) - 2, (text, sentence["text"])
