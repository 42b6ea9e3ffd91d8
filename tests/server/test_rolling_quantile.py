"""Rolling quantiles, compared with numpy.quantile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_server.vision.rolling_quantile import RollingQuantile

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(values=VALUES, window=st.integers(1, 20), probability=st.floats(0, 1))
def test_quantiles_match_numpy_over_the_rolling_window(
    values: list[float], window: int, probability: float
) -> None:
    recent = RollingQuantile(window)
    for count, value in enumerate(values, start=1):
        recent.push(value)
        latest = values[max(0, count - window) : count]
        assert len(recent) == len(latest)
        assert recent.quantile(probability) == pytest.approx(
            np.quantile(latest, probability), rel=1e-9, abs=1e-6
        )
