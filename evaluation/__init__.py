"""Measures any model through the real service: error rates, word times, speakers, noise (``gorggle evaluate``).

A client of the server like any other: it imports the SDK and nothing of the server.
"""
