"""What can go wrong in fusion: only its input."""

from __future__ import annotations


class FusionInputError(ValueError):
    """A document is not what it should be. The message names the document and the place in it.

    The state machine cannot mend this by trying again: the job fails and shows the message.
    """
