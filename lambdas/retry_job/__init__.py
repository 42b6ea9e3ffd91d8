"""Runs a failed job again."""
