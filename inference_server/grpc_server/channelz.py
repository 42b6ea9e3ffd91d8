"""gRPC channelz: debugging service for connections and streams.

It reveals who is connected, so it has its own server on loopback, and is off by default.
"""

from __future__ import annotations

from grpc import aio
from grpc_channelz.v1 import channelz

from gorggle_server.errors import InvalidRequestError


async def start_channelz(listen: str) -> aio.Server:
    """Serve channelz on HOST:PORT until the returned server is stopped; port 0 selects a free one.

    Raises:
        InvalidRequestError: the address cannot be bound.
    """
    # It does not list itself; and a second server on its port must fail, not share it.
    server = aio.server(options=[("grpc.enable_channelz", 0), ("grpc.so_reuseport", 0)])
    channelz.add_channelz_servicer(server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError as error:
        raise InvalidRequestError(f"cannot listen on {listen}: {error}") from error
    await server.start()
    return server
