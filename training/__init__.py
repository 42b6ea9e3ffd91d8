"""Renders synthetic speakers, trains the embedded model on them, and evaluates models."""
