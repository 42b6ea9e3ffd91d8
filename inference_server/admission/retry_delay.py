"""Retry delays of RESOURCE_EXHAUSTED errors, in seconds: how long a refused client waits before its next attempt."""

from __future__ import annotations

# Streams end often, so a slot is soon free.
STREAM_SLOT_RETRY_DELAY_S = 2.0
# Capacity is measured over several seconds.
CAPACITY_RETRY_DELAY_S = 5.0
