"""Sandboxed decoding: untrusted media is decoded and face-tracked in isolated subprocesses.

A crash affects only its own stream.
"""
