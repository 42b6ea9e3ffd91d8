"""Reads one window of the video."""
