"""``gorggle gateway``: serve the web page and live captions."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading

from gorggle import GorggleError
from gorggle_gateway.settings import GatewaySettings, SettingsError, load_settings
from gorggle_gateway.token_file import TokenFileError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main() -> int:
    """Run the gateway and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # An access log would hold the clients' addresses.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(load_settings()))
    except SettingsError as error:
        print(f"gorggle gateway: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (GorggleError, TokenFileError, OSError) as error:
        print(f"gorggle gateway: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGINT or SIGTERM; print the address as one line of JSON when ready."""
    from aiohttp import web

    from gorggle_gateway.app import create_app

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(create_app(settings), shutdown_timeout=5.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        port = runner.addresses[0][1]
        print(json.dumps({"listening": f"{settings.host}:{port}"}), flush=True)
        if settings.exit_on_stdin_eof:
            threading.Thread(target=_wait_for_stdin, args=(loop, stop), daemon=True).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def _wait_for_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    sys.exit(main())
