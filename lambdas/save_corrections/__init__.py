"""Keeps a corrected result as a new version."""
