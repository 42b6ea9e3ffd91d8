"""Asks the GPU server whether it is ready."""
