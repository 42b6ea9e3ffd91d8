"""Answers requests that no route takes."""
