"""Marks the job failed."""
