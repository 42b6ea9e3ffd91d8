"""Starts face detection on the video."""
