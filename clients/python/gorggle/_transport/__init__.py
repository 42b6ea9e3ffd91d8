"""Channels, calls, retries and resumption."""
