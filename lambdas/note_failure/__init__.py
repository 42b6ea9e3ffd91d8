"""Keeps why a source is lost."""
