"""Errors of fusion."""

from __future__ import annotations


class FusionInputError(ValueError):
    """An input document is invalid. The message names the document and the location in it.

    Retrying cannot help: the state machine fails the job and shows the message.
    """
