"""gRPC channelz: debugging service for connections and streams.

It reveals who is connected, so it has its own server on loopback, and is off by default.
"""

from __future__ import annotations

from grpc import aio
from grpc_channelz.v1 import channelz

from gorggle_server.errors import InvalidRequestError


class ChannelzServer:
    """Serves channelz from ``start`` to ``stop``.

    Args:
        listen: HOST:PORT on loopback; port 0 selects a free one.
    """

    def __init__(self, listen: str) -> None:
        self._listen = listen
        # It does not list itself; and a second server on its port must fail, not share it.
        self._server = aio.server(options=[("grpc.enable_channelz", 0), ("grpc.so_reuseport", 0)])
        channelz.add_channelz_servicer(self._server)
        self.port = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            InvalidRequestError: the address cannot be bound.
        """
        try:
            self.port = self._server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise InvalidRequestError(f"cannot listen on {self._listen}: {error}") from error
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving."""
        await self._server.stop(0)
