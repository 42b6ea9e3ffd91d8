"""Asks for GPU instances if there are none."""
