"""Reads one window of the sound."""
