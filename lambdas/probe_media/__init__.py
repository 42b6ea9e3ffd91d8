"""Looks into the video."""
