"""The commands that start the services of `gorggle local`."""

from __future__ import annotations

from pathlib import Path

from gorggle_local import supervisor
from gorggle_local.supervisor import LocalSettings


def test_the_server_gets_the_selected_model() -> None:
    settings = LocalSettings("127.0.0.1:8080", Path("data"), "cpu", 10**9, "avhubert-avsr-large-433h")
    command = supervisor._server_command(settings, "127.0.0.1:0")
    assert command[command.index("--default-model") + 1] == "avhubert-avsr-large-433h"


def test_the_server_chooses_the_model_if_none_is_selected() -> None:
    settings = LocalSettings("127.0.0.1:8080", Path("data"), "cpu", 10**9)
    assert "--default-model" not in supervisor._server_command(settings, "127.0.0.1:0")
