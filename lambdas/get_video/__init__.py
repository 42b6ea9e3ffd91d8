"""Gives an address that plays the uploaded video for a while."""
