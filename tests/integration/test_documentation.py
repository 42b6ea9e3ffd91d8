"""What the README and the pages of docs/ show: code runs, commands are understood, settings and fields exist."""

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
from gorggle_evaluation import __main__ as measuring
from gorggle_gateway.settings import load_settings
from gorggle_local import __main__ as whole_product
from gorggle_server import __main__ as serving
from gorggle_server.avhubert import __main__ as models
from gorggle_server.settings import ServerSettings
from tests.integration.conftest import DEMO, ROOT, RunningServer
from training import __main__ as training

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN_ADDRESS = "127.0.0.1:50051"


def blocks(language: str) -> list[pytest.ParameterSet]:
    """The fenced blocks in a language, each with the page and its place there."""
    return [
        pytest.param(match.group(1), id=f"{page.name}-{number}")
        for page in PAGES
        for number, match in enumerate(
            re.finditer(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL), 1
        )
    ]


def commands(program: str) -> list[str]:
    """The command lines of a program in all console blocks, without prompt and redirection."""
    lines = [line for block in blocks("console") for line in str(block.values[0]).splitlines()]
    said = (re.sub(r"^\$ | > \S+$", "", line).strip() for line in lines)
    return [line for line in said if line.startswith(program + " ")]


@pytest.mark.parametrize("code", blocks("python"))
def test_the_code_runs_as_it_stands(code: str, server: RunningServer) -> None:
    assert WRITTEN_ADDRESS in code
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(WRITTEN_ADDRESS, server.address)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


@pytest.mark.parametrize("line", commands("gorggle"))
def test_the_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match shlex.split(line, comments=True)[1:]:
        case ["serve", *rest]:
            serving._create_parser().parse_args(rest)
        case ["model", *rest]:
            models._build_parser().parse_args(rest)
        case ["evaluate", *rest]:
            measuring._build_parser().parse_args(rest)
        case ["token", name, _]:
            assert name
        case ["cost", *rest]:
            monkeypatch.chdir(tmp_path)
            (tmp_path / "prices.json").write_text("{}")
            assert main.main(["cost", *rest]) == 0
        case ["gateway", *rest]:
            load_settings(rest)
        case ["local", *rest]:
            whole_product._build_parser().parse_args(rest)
        case arguments:
            main._build_parser().parse_args(arguments)


@pytest.mark.parametrize("line", commands("python -m training"))
def test_the_training_command_is_understood(line: str) -> None:
    training._build_parser().parse_args(shlex.split(line, comments=True)[3:])


@pytest.mark.parametrize("line", commands("make"))
def test_the_target_is_made(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_setting_is_in_the_table_and_only_those() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().split("| setting |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(ServerSettings.model_fields)


def test_the_json_shown_has_the_fields_that_come(client: Client) -> None:
    (shown,) = (json.loads(str(block.values[0])) for block in blocks("json") if block.id == "api.md-1")
    came = json.loads(client.recognize(DEMO).to_json())
    assert shown.keys() == came.keys()
    assert shown["segments"][0].keys() == came["segments"][0].keys()
    assert shown["segments"][0]["words"][0].keys() == came["segments"][0]["words"][0].keys()


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
