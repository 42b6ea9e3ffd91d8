"""Starts Amazon Transcribe on the sound."""
