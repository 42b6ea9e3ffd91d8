"""``gorggle transcribe --overlay`` and ``--plot``: what they need, and when they cannot be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gorggle.cli.server_args import UsageError
from gorggle.errors import ConfigurationError
from gorggle.events import Activity
from gorggle.results import Transcript

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
IMAGE_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class RenderOptions:
    """Which pictures to make.

    Attributes:
        overlay: the video with captions and face boxes goes here.
        plot: the words on a time line go here.
    """

    overlay: Path | None = None
    plot: Path | None = None

    def __bool__(self) -> bool:
        return self.overlay is not None or self.plot is not None

    def write(self, clip: Path, transcript: Transcript, activities: Sequence[Activity]) -> None:
        """Make what was asked for.

        Raises:
            ConfigurationError: what draws is not installed.
            InvalidSourceError: the clip has no pictures to draw on.
            OSError: a file cannot be written.
        """
        try:
            if self.overlay is not None:
                from gorggle.rendering.overlay import write_overlay

                write_overlay(clip, transcript.segments, self.overlay)
            if self.plot is not None:
                from gorggle.rendering.timeline_plot import write_plot

                write_plot(clip, transcript, activities, self.plot)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"what draws pictures is not installed: pip install 'gorggle[pictures]' (no module named {error.name})"
            ) from error


def parse_render_options(files: Sequence[str], overlay: str | None, plot: str | None) -> RenderOptions:
    """Check what was asked for before anything is read.

    Raises:
        UsageError: several files or standard input, or a file of another kind.
    """
    chosen = RenderOptions(Path(overlay) if overlay else None, Path(plot) if plot else None)
    if not chosen:
        return chosen
    if len(files) != 1 or files[0] == "-":
        raise UsageError(
            "--overlay and --plot take one file at a time, and no standard input: it is read twice"
        )
    for name, path, suffixes in (
        ("overlay", chosen.overlay, VIDEO_SUFFIXES),
        ("plot", chosen.plot, IMAGE_SUFFIXES),
    ):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"--{name} {path}: expected a name that ends in {', '.join(suffixes)}")
        if path.resolve() == Path(files[0]).resolve():
            raise UsageError(f"--{name} {path} would overwrite the video itself: give another name")
        if not path.resolve().parent.is_dir():
            raise UsageError(f"--{name} {path}: there is no folder {path.resolve().parent}")
    return chosen
