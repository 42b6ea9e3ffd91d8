"""Makes one result of all sources."""
