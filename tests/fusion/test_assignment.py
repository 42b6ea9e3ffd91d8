"""Compares the matching with a brute-force search."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_lambdas.fusion.assignment import max_weight_matching

unhurried = settings(deadline=None, max_examples=150)


@st.composite
def weights(draw: st.DrawFn) -> list[list[int]]:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    line = st.lists(st.integers(0, 3), min_size=columns, max_size=columns)
    return draw(st.lists(line, min_size=rows, max_size=rows))


def greatest_of_all(given_weights: list[list[int]]) -> int:
    rows, columns = len(given_weights), len(given_weights[0])
    # A column beyond the last one means "unmatched".
    choices = itertools.product(range(columns + 1), repeat=rows)
    return max(
        sum(given_weights[row][column] for row, column in enumerate(chosen) if column < columns)
        for chosen in choices
        if len({c for c in chosen if c < columns}) == sum(c < columns for c in chosen)
    )


@unhurried
@given(weights())
def test_no_assignment_weighs_more(given_weights: list[list[int]]) -> None:
    pairs = max_weight_matching(given_weights)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(given_weights[row][column] > 0 for row, column in pairs)
    assert sum(given_weights[row][column] for row, column in pairs) == greatest_of_all(given_weights)


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
