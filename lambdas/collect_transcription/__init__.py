"""Tells whether the transcription is done."""
