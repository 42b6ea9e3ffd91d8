"""Measures a model through the service: word error rate, word times, speaker attribution (``gorggle evaluate``).

A client of the server: it imports the SDK and no server code.
"""
