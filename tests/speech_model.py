"""Whether the weights of the speech model are installed here: there are no wheels for some platforms."""

from __future__ import annotations

import pytest

from gorggle_server.errors import NotFoundError
from gorggle_server.moonshine import find_model_folder


def is_installed() -> bool:
    try:
        find_model_folder()
    except NotFoundError:
        return False
    return True


IS_INSTALLED = is_installed()
needs_speech_model = pytest.mark.skipif(
    not IS_INSTALLED, reason="moonshine-voice 0.1.0 is not installed; it has no wheel for some platforms"
)
