"""``gorggle model``: lists, downloads, removes, converts and describes models."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gorggle.cli.progress import ProgressLine
from gorggle_server.errors import GorggleError, InvalidRequestError, NotFoundError
from gorggle_server.model_catalogue.catalogue import CatalogueModel, find_missing_extra, load_catalogue
from gorggle_server.model_catalogue.download import Downloader, DownloadError, Observer, check_url
from gorggle_server.model_catalogue.install import install
from gorggle_server.model_catalogue.store import (
    InstalledModel,
    ModelStore,
    get_default_model_dir,
    get_model_dir,
)

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
# Interval of progress lines if standard error is not a terminal.
PROGRESS_INTERVAL_S = 10.0
REDRAW_INTERVAL_S = 0.1
# Commands of the engine's own module.
ENGINE_COMMANDS = {
    "convert": "convert a checkpoint to safetensors",
    "info": "describe a model file",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 on failure, 2 on wrong usage, 130 after Ctrl-C."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args and args[0] in ENGINE_COMMANDS:
        from gorggle_server.avhubert.__main__ import main as run_engine_command

        return run_engine_command(args)
    options = _build_parser().parse_args(args)
    store = ModelStore(options.model_dir or get_model_dir())
    try:
        match options.command:
            case "list":
                _print_list(store, as_json=options.json)
            case "get":
                _get(options, store)
            case _:
                _remove(options.name, store)
    except BrokenPipeError:
        raise  # the reader closed the pipe: `gorggle` handles it
    except (GorggleError, DownloadError, OSError) as error:
        print(f"gorggle: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(
            "\ngorggle: interrupted; what was received is kept: run the command again to continue",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    return EXIT_OK


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gorggle model", description="List, download and convert models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--model-dir",
        type=Path,
        metavar="DIR",
        help=f"folder of installed models (default: $GORGGLE_MODEL_DIR, else {get_default_model_dir()})",
    )
    listing = commands.add_parser(
        "list", parents=[folder], help="list models, their licences and which are installed"
    )
    listing.add_argument("--json", action="store_true", help="print all fields as JSON")
    getting = commands.add_parser(
        "get",
        parents=[folder],
        help="download a model",
        description="Download a model, or continue an interrupted download. The licence is shown first and must be accepted.",
    )
    getting.add_argument("name", metavar="NAME", help="a name from `gorggle model list`")
    getting.add_argument(
        "--accept-license", action="store_true", help="accept the licence without being asked, for scripts"
    )
    getting.add_argument(
        "--mirror",
        metavar="URL",
        default=os.environ.get("GORGGLE_MODEL_MIRROR") or None,
        help="download URL/HOST/PATH instead of https://HOST/PATH (default: $GORGGLE_MODEL_MIRROR)",
    )
    removing = commands.add_parser(
        "remove", parents=[folder], help="delete an installed model or unfinished download"
    )
    removing.add_argument("name", metavar="NAME")
    for command, text in ENGINE_COMMANDS.items():
        commands.add_parser(command, help=text, add_help=False)
    return parser


# ----------------------------------------------------------------------------------------------------------------- list


def _print_list(store: ModelStore, *, as_json: bool) -> None:
    installed = store.list_models()
    rows = [_describe(model, installed.get(model.name)) for model in load_catalogue().values()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    cells = [("NAME", "STATE", "DOWNLOAD", "COMMERCIAL USE", "DESCRIPTION")]
    for row in rows:
        size = "" if row["embedded"] else _format_size(row["download_bytes"])
        use = "permitted" if row["license"]["commercial_use"] else "forbidden"
        cells.append((row["name"], row["state"], size, use, row["description"]))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"\ninstalled models are in {store.folder}", file=sys.stderr)


def _describe(model: CatalogueModel, installed: InstalledModel | None) -> dict[str, Any]:
    """Return a model's entry in the list, as JSON-serializable values."""
    state = "included" if model.is_embedded else "installed" if installed else "not installed"
    if not model.is_servable:
        extra = find_missing_extra(model.engine)
        state += f", needs {extra or model.engine}"
    return {
        "name": model.name,
        "state": state,
        "engine": model.engine,
        "servable": model.is_servable,
        "embedded": model.is_embedded,
        "path": str(installed.path) if installed else None,
        "download_bytes": model.size_bytes,
        "description": model.description,
        "trained_on": model.trained_on,
        "languages": list(model.languages),
        "license": {
            "name": model.license.name,
            "url": model.license.url,
            "commercial_use": model.license.commercial_use,
        },
    }


def _format_size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "not stated"
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


# ------------------------------------------------------------------------------------------------------------------ get


def _get(options: argparse.Namespace, store: ModelStore) -> None:
    model = _find_model(options.name)
    if model.is_embedded:
        print(f"{model.name} is included in Gorggle: there is nothing to download")
        return
    if options.mirror:
        check_url(options.mirror)
    if installed := store.find(model.name):
        print(f"{model.name} is already installed in {installed.folder}")
        return
    _accept_license(model, is_accepted=options.accept_license)
    if extra := find_missing_extra(model.engine):
        print(
            f"note: the engine {model.engine} is not installed: to use the model, run pip install '{extra}'",
            file=sys.stderr,
        )
    progress = _ProgressReport(model.name)
    try:
        installed = install(
            model, store, Downloader(Observer(progress.report, progress.show_progress)), options.mirror
        )
    finally:
        progress.close()
    print(f"installed {model.name} ({_format_size(installed.size_bytes)}) in {installed.folder}")


def _find_model(name: str) -> CatalogueModel:
    catalogue: Mapping[str, CatalogueModel] = load_catalogue()
    if name not in catalogue:
        raise NotFoundError(f"unknown model {name!r}; known models: {', '.join(catalogue)}")
    return catalogue[name]


def _accept_license(model: CatalogueModel, *, is_accepted: bool) -> None:
    """Show a model's licence and ask whether the user accepts it, unless it is accepted already.

    Raises:
        InvalidRequestError: the user declines, or standard input is not a terminal.
    """
    text = f"{model.name}: {model.license.name} ({model.license.terms}), {model.license.url}\n{model.license.summary}"
    print(text, file=sys.stderr)
    if is_accepted:
        return
    if not sys.stdin.isatty():
        raise InvalidRequestError("the licence must be accepted: read it, then add --accept-license")
    print("Do you accept this licence? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise InvalidRequestError("the licence was not accepted: nothing was downloaded")


class _ProgressReport:
    """Progress on standard error: a line that is redrawn on a terminal, else a line every few seconds."""

    def __init__(self, name: str) -> None:
        self._line = ProgressLine(sys.stderr, name)
        self._interval_s = REDRAW_INTERVAL_S if sys.stderr.isatty() else PROGRESS_INTERVAL_S
        self._name = name
        self._shown_at = time.monotonic()

    def report(self, text: str) -> None:
        """Print a message."""
        self._line.clear()
        print(text, file=sys.stderr, flush=True)

    def show_progress(self, done_bytes: int, total_bytes: int | None) -> None:
        """Show the bytes received, at most once per interval."""
        now = time.monotonic()
        if now - self._shown_at < self._interval_s:
            return
        self._shown_at = now
        text = f"{done_bytes / 1e6:,.1f} MB"
        if total_bytes:
            text = f"{done_bytes / total_bytes:4.0%} of {total_bytes / 1e6:,.1f} MB"
        if sys.stderr.isatty():
            self._line.set_message(text)
        else:
            self.report(f"{self._name}: {text}")

    def close(self) -> None:
        """Clear the line."""
        self._line.close()


# --------------------------------------------------------------------------------------------------------------- remove


def _remove(name: str, store: ModelStore) -> None:
    model = load_catalogue().get(name)
    if model and model.is_embedded:
        raise InvalidRequestError(f"{name} is included in Gorggle and cannot be removed")
    if model is None and store.find(name) is None:
        raise NotFoundError(f"unknown model {name!r}; installed: {', '.join(store.list_models()) or 'none'}")
    print(f"removed {name}, {_format_size(store.remove(name))} freed")


if __name__ == "__main__":
    sys.exit(main())
