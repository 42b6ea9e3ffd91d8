"""Tells how far a job is."""
