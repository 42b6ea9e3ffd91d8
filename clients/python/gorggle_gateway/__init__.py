"""Gateway for browsers: the web page, and live captions over WebSocket from an inference server."""
