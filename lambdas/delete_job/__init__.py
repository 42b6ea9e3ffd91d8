"""Stops a job and deletes what it has."""
