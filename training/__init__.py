"""Renders speakers that talk, trains the embedded model on them, and measures models."""
