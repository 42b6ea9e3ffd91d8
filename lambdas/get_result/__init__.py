"""Gives a result."""
