"""Documentation tests: code examples run, commands parse, and settings, fields and links exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gorggle import Client
from gorggle.cli import main
from gorggle_evaluation import __main__ as evaluation_cli
from gorggle_gateway.settings import load_settings
from gorggle_local import __main__ as local_cli
from gorggle_server import __main__ as server_cli
from gorggle_server.avhubert import __main__ as model_cli
from gorggle_server.model_catalogue import __main__ as catalogue_cli
from gorggle_server.settings import ServerSettings
from gorggle_training import __main__ as training_cli
from gorggle_training import train_command
from tests.integration.conftest import DEMO, ROOT, RunningServer

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTED_ADDRESS = "127.0.0.1:50051"


def find_fenced_blocks(language: str) -> list[pytest.ParameterSet]:
    """Return the fenced blocks in a language; their ids are the page and the number of the block in it."""
    return [
        pytest.param(match.group(1), id=f"{page.name}-{number}")
        for page in PAGES
        for number, match in enumerate(
            re.finditer(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL), 1
        )
    ]


def find_command_lines(program: str) -> list[str]:
    """Return the command lines of a program in all console blocks, without prompt and redirection."""
    lines = [line for block in find_fenced_blocks("console") for line in str(block.values[0]).splitlines()]
    command_lines = (re.sub(r"^\$ | > \S+$", "", line).strip() for line in lines)
    return [line for line in command_lines if line.startswith(program + " ")]


@pytest.mark.parametrize("code", find_fenced_blocks("python"))
def test_documented_code_runs_unchanged(code: str, server: RunningServer) -> None:
    assert DOCUMENTED_ADDRESS in code
    # A shorter clip of the same kind.
    code = code.replace(DOCUMENTED_ADDRESS, server.address).replace("examples/demo.mp4", str(DEMO))
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("line", find_command_lines("gorggle"))
def test_documented_commands_are_parsed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match shlex.split(line, comments=True)[1:]:
        case ["serve", *rest]:
            server_cli._create_parser().parse_args(rest)
        case ["model", *rest]:
            parser = model_cli if rest[0] in catalogue_cli.ENGINE_COMMANDS else catalogue_cli
            parser._build_parser().parse_args(rest)
        case ["evaluate", *rest]:
            evaluation_cli._build_parser().parse_args(rest)
        case ["train", *rest]:
            train_command._build_parser().parse_args(rest)
        case ["token", name, _]:
            assert name
        case ["cost", *rest]:
            monkeypatch.chdir(tmp_path)
            (tmp_path / "prices.json").write_text("{}")
            assert main.main(["cost", *rest]) == 0
        case ["gateway", *rest]:
            load_settings(rest)
        case ["local", *rest]:
            local_cli._build_parser().parse_args(rest)
        case arguments:
            main._build_parser().parse_args(arguments)


@pytest.mark.parametrize("line", find_command_lines("python -m training"))
def test_documented_training_commands_are_parsed(line: str) -> None:
    training_cli._build_parser().parse_args(shlex.split(line, comments=True)[3:])


@pytest.mark.parametrize("line", find_command_lines("make"))
def test_documented_make_targets_exist(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_settings_table_lists_exactly_the_server_settings() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().split("| setting |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(ServerSettings.model_fields)


def test_the_documented_json_has_the_fields_of_a_real_transcript(client: Client) -> None:
    (documented,) = (
        json.loads(str(block.values[0])) for block in find_fenced_blocks("json") if block.id == "api.md-1"
    )
    actual = json.loads(client.recognize(DEMO).to_json())
    assert documented.keys() == actual.keys()
    assert documented["segments"][0].keys() == actual["segments"][0].keys()
    assert documented["segments"][0]["words"][0].keys() == actual["segments"][0]["words"][0].keys()


def test_relative_links_point_to_existing_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
