"""Marks the job done."""
