"""Rolling quantiles compared with numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_server.vision.rolling_quantile import RollingQuantile

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(values=VALUES, most=st.integers(1, 20), share=st.floats(0, 1))
def test_quantiles_are_those_of_the_latest_values(values: list[float], most: int, share: float) -> None:
    recent = RollingQuantile(most)
    for count, value in enumerate(values, start=1):
        recent.push(value)
        latest = values[max(0, count - most) : count]
        assert len(recent) == len(latest)
        assert recent.quantile(share) == pytest.approx(np.quantile(latest, share), rel=1e-9, abs=1e-6)
