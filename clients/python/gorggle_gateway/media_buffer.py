"""What a session keeps of a browser's recording, so that another server can go on reading it."""

from __future__ import annotations

from gorggle_gateway.ebml import Cluster, EbmlParser

# The server counts time from the first picture or sound, whichever it decodes first: a frame this way or that.
FRAME_DURATION_S = 0.04


class BufferFullError(Exception):
    """More of the recording would have to be kept than is allowed: the server is too far behind."""


class RetainedMedia:
    """A recording as it arrives: its elements in order, of which those before ``processed_s`` are let go.

    Args:
        retained_bytes: the most that is kept.

    Raises:
        MatroskaError: from ``add``: the bytes are no recording.
        BufferFullError: from ``add``: see there.
    """

    def __init__(self, retained_bytes: int) -> None:
        self._parser = EbmlParser()
        self._retained_bytes = retained_bytes
        self._clusters: list[Cluster] = []
        self._size_bytes = 0
        self._start_s: float | None = None

    def add(self, chunk: bytes) -> list[bytes]:
        """Take in bytes; give those that can be sent on, whole elements only."""
        sendable = []
        for cluster, raw in self._parser.feed(chunk):
            if cluster is not None:
                if not self._clusters or self._clusters[-1] is not cluster:
                    self._clusters.append(cluster)
                if self._start_s is None:
                    self._start_s = cluster.start_s
                self._size_bytes += len(raw)
            sendable.append(raw)
        if self._size_bytes > self._retained_bytes:
            raise BufferFullError(
                f"{self._size_bytes >> 20} MiB of media wait to be read: the server cannot keep up"
            )
        return sendable

    def discard_before(self, processed_s: float) -> None:
        """Let go of what no server will need again: every segment before this time is final."""
        keep_from = self._find_start(processed_s)
        for cluster in self._clusters[:keep_from]:
            self._size_bytes -= cluster.size_bytes
        del self._clusters[:keep_from]

    def replay_from(self, processed_s: float) -> tuple[float, list[bytes]]:
        """What to send to another server: the time that it begins at, and the bytes."""
        clusters = self._clusters[self._find_start(processed_s) :]
        start_s = clusters[0].start_s if clusters else None
        offset_s = max(0.0, start_s - (self._start_s or 0.0)) if start_s is not None else 0.0
        return offset_s, [self._parser.header, *(part for cluster in clusters for part in cluster.parts)]

    def _find_start(self, processed_s: float) -> int:
        """The last cluster that reading can begin at and that does not begin after a time."""
        limit_s = (self._start_s or 0.0) + processed_s - FRAME_DURATION_S
        found = 0
        for index, cluster in enumerate(self._clusters):
            if cluster.start_s is not None and cluster.start_s <= limit_s and cluster.is_key:
                found = index
        return found
