"""Rendering of results: captions over a video, and a timeline plot."""
