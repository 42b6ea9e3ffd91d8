"""The gateway with a real inference server that is killed during a session and restarted."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clips import remux
from tests.gateway.conftest import running_gateway
from tests.gateway.recordings import EXAMPLES

pytestmark = pytest.mark.timeout(300)


class Server:
    """``gorggle serve`` with a fixed port across restarts."""

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{found.getsockname()[1]}"
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
    truth = json.loads((EXAMPLES / "demo.json").read_text())
    server = Server()
    server.start()

    async def talk() -> list[str]:
        async with running_gateway(server.address) as gateway, gateway.session() as live:
            await live.send_all(media[: len(media) // 2], step=16_384)
            while True:
                message = await live.until("segment")
                if message["is_final"]:
                    break
            await asyncio.to_thread(server.kill)
            await live.until("recovering")
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await live.until("recovered")
            await starting
            await live.send_all(media[len(media) // 2 :], step=16_384)
            await live.say({"type": "stop"})
            await live.rest()
            return live.texts()

    try:
        texts = asyncio.run(asyncio.wait_for(talk(), 240))
    finally:
        server.kill()
    assert len(texts) == len(truth["sentences"]), texts
    for text, sentence in zip(texts, truth["sentences"], strict=True):
        words = {word["text"] for word in sentence["words"]}
        assert len(words & set(text.split())) >= len(words) - 2, (text, sentence["text"])
