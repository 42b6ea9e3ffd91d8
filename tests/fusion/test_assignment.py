"""Tests of maximum-weight matching, compared with a brute-force search."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_fusion.assignment import max_weight_matching

property_test = settings(deadline=None, max_examples=150)


@st.composite
def weight_matrices(draw: st.DrawFn) -> list[list[int]]:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 3), min_size=columns, max_size=columns)
    return draw(st.lists(row, min_size=rows, max_size=rows))


def find_max_weight(weights: list[list[int]]) -> int:
    rows, columns = len(weights), len(weights[0])
    # A column beyond the last one means "unmatched".
    choices = itertools.product(range(columns + 1), repeat=rows)
    return max(
        sum(weights[row][column] for row, column in enumerate(chosen) if column < columns)
        for chosen in choices
        if len({c for c in chosen if c < columns}) == sum(c < columns for c in chosen)
    )


@property_test
@given(weight_matrices())
def test_the_matching_has_the_maximum_weight(weights: list[list[int]]) -> None:
    pairs = max_weight_matching(weights)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(weights[row][column] > 0 for row, column in pairs)
    assert sum(weights[row][column] for row, column in pairs) == find_max_weight(weights)


def test_ties_go_to_earlier_pairs() -> None:
    assert max_weight_matching([[5, 5], [5, 5]]) == [(0, 0), (1, 1)]
    assert max_weight_matching([[5, 5, 5]]) == [(0, 0)]
    assert max_weight_matching([[5], [5], [5]]) == [(0, 0)]


def test_the_total_weight_is_maximized() -> None:
    assert max_weight_matching([[10, 9], [9, 1]]) == [(0, 1), (1, 0)]


def test_empty_weights_have_no_pairs() -> None:
    assert max_weight_matching([]) == []
    assert max_weight_matching([[], []]) == []
    assert max_weight_matching([[0, 0]]) == []
