"""``gorggle transcribe --overlay`` and ``--plot``."""

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
    """Paths of the files to render: the video with captions and face boxes, and the timeline plot."""

    overlay: Path | None = None
    plot: Path | None = None

    def __bool__(self) -> bool:
        return self.overlay is not None or self.plot is not None

    def write(self, clip: Path, transcript: Transcript, activities: Sequence[Activity]) -> None:
        """Render the requested files.

        Raises:
            ConfigurationError: the extra ``rendering`` is not installed.
            InvalidSourceError: the clip has no video stream.
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
                f"--overlay and --plot are not installed: pip install 'gorggle[rendering]' (no module named {error.name})"
            ) from error


def parse_render_options(files: Sequence[str], overlay: str | None, plot: str | None) -> RenderOptions:
    """Validate the options before transcription.

    Raises:
        UsageError: several files or standard input, or an unsupported extension or path.
    """
    options = RenderOptions(Path(overlay) if overlay else None, Path(plot) if plot else None)
    if not options:
        return options
    if len(files) != 1 or files[0] == "-":
        raise UsageError("--overlay and --plot need exactly one file, not standard input: it is read twice")
    for name, path, suffixes in (
        ("overlay", options.overlay, VIDEO_SUFFIXES),
        ("plot", options.plot, IMAGE_SUFFIXES),
    ):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"--{name} {path}: expected a name that ends with {', '.join(suffixes)}")
        if path.resolve() == Path(files[0]).resolve():
            raise UsageError(f"--{name} {path} would overwrite the input: use another name")
        if not path.resolve().parent.is_dir():
            raise UsageError(f"--{name} {path}: no such folder: {path.resolve().parent}")
    return options
