"""Prometheus metrics and stage timers."""
