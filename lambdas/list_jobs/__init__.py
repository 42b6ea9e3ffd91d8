"""Lists the caller's jobs."""
