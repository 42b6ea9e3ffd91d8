"""Retains the unprocessed part of a browser's recording, for replay to another server."""

from __future__ import annotations

from gorggle_gateway.ebml import Cluster, EbmlParser
from gorggle_gateway.protocol import SessionError

# The server's timestamps start at the first frame or audio packet that it decodes: tolerate one frame.
FRAME_DURATION_S = 0.04


class RetainedMedia:
    """A recording in progress, of which the processed part is discarded."""

    def __init__(self, max_bytes: int) -> None:
        self._parser = EbmlParser()
        self._max_bytes = max_bytes
        self._clusters: list[Cluster] = []
        self._size_bytes = 0
        self._start_s: float | None = None

    def add(self, chunk: bytes) -> list[bytes]:
        """Add bytes; return the complete elements, which can be sent.

        Raises:
            MatroskaError: the bytes are not a recording.
            SessionError: the retained media exceeds its limit: the server is too far behind.
        """
        sendable = []
        for cluster, raw in self._parser.feed(chunk):
            if cluster is not None:
                if not self._clusters or self._clusters[-1] is not cluster:
                    self._clusters.append(cluster)
                if self._start_s is None:
                    self._start_s = cluster.start_s
                self._size_bytes += len(raw)
            sendable.append(raw)
        if self._size_bytes > self._max_bytes:
            raise SessionError(
                "overloaded",
                f"{self._size_bytes >> 20} MiB of media are unprocessed: the server cannot keep up",
            )
        return sendable

    def discard_before(self, processed_s: float) -> None:
        """Discard media that no server needs again, given that all segments before this time are final."""
        start = self._find_start(processed_s)
        self._size_bytes -= sum(len(part) for cluster in self._clusters[:start] for part in cluster.parts)
        del self._clusters[:start]

    def replay_from(self, processed_s: float) -> tuple[float, list[bytes]]:
        """Return the start time and the bytes of the stream for another server."""
        clusters = self._clusters[self._find_start(processed_s) :]
        start_s = clusters[0].start_s if clusters else None
        offset_s = max(0.0, start_s - (self._start_s or 0.0)) if start_s is not None else 0.0
        return offset_s, [self._parser.header, *(part for cluster in clusters for part in cluster.parts)]

    def _find_start(self, processed_s: float) -> int:
        """Return the index of the last cluster at or before a time at which decoding can start."""
        limit_s = (self._start_s or 0.0) + processed_s - FRAME_DURATION_S
        starts = (
            index
            for index, cluster in enumerate(self._clusters)
            if cluster.start_s is not None and cluster.start_s <= limit_s and cluster.is_key
        )
        return max(starts, default=0)
