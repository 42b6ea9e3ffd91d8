"""Gorggle for browsers: the page, and live captions over WebSocket, relayed to an inference server."""
