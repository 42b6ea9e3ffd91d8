"""Lets calls with a known API token through."""
