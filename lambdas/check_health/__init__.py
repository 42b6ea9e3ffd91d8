"""Tells whether the API answers."""
