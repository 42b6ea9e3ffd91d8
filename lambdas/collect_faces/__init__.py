"""Tells whether the face detection is done."""
