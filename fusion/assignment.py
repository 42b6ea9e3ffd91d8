"""Maximum-weight bipartite matching."""

from __future__ import annotations

import math
from collections.abc import Sequence

Weights = Sequence[Sequence[int]]


def max_weight_matching(weights: Weights) -> list[tuple[int, int]]:
    """Match rows with columns, each at most once, so that the sum of the matched weights is greatest.

    Args:
        weights: rows × columns, integers of 0 or more; 0 forbids the pair. Integers make sums and ties exact; ties go to
            earlier rows with earlier columns.

    Returns:
        (row, column) of every pair, by row.

    Source: the Hungarian method with potentials in the shortest-path form (Kuhn 1955; Jonker and Volgenant 1987);
        O(n² m) for n the shorter side.
    """
    if not weights or not weights[0]:
        return []
    if len(weights) > len(weights[0]):
        turned = max_weight_matching([list(column) for column in zip(*weights, strict=True)])
        return sorted((row, column) for column, row in turned)
    return [
        (row, column)
        for row, column in _find_min_cost_matching(_break_ties(weights))
        if weights[row][column] > 0
    ]


def _break_ties(weights: Weights) -> list[list[int]]:
    """Convert weights to costs, with a preference for early pairs that is too small to outweigh one weight unit."""
    rows, columns = len(weights), len(weights[0])
    unit = rows * rows * columns + 1
    return [
        [
            -weight * unit - (rows - row) * (columns - column) if weight else 0
            for column, weight in enumerate(line)
        ]
        for row, line in enumerate(weights)
    ]


def _find_min_cost_matching(costs: list[list[int]]) -> list[tuple[int, int]]:
    """Match every row at the least total cost; there are at least as many columns as rows."""
    rows, columns = len(costs), len(costs[0])
    # Integers, although ``math.inf`` makes the type float: exact.
    row_potential: list[float] = [0] * (rows + 1)
    column_potential: list[float] = [0] * (columns + 1)
    row_of = [0] * (columns + 1)  # counted from 1; 0: unmatched
    for row in range(1, rows + 1):
        row_of[0] = row
        came_from = _find_shortest_path(costs, row_of, row_potential, column_potential)
        column = came_from.pop(-1)
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return sorted((row_of[column] - 1, column - 1) for column in range(1, columns + 1) if row_of[column])


def _find_shortest_path(
    costs: list[list[int]], row_of: list[int], row_potential: list[float], column_potential: list[float]
) -> dict[int, int]:
    """Return the cheapest path from the row at column 0 to a free column, as each column's predecessor; -1: the end."""
    distance = [math.inf] * len(column_potential)
    came_from: dict[int, int] = {}
    done: list[int] = []
    left = list(range(1, len(column_potential)))
    column = 0
    while row_of[column]:
        done.append(column)
        row = row_of[column]
        for other in left:
            reduced = costs[row - 1][other - 1] - row_potential[row] - column_potential[other]
            if reduced < distance[other]:
                distance[other], came_from[other] = reduced, column
        nearest = min(left, key=distance.__getitem__)
        step = distance[nearest]
        for other in done:
            row_potential[row_of[other]] += step
            column_potential[other] -= step
        for other in left:
            distance[other] -= step
        left.remove(nearest)
        column = nearest
    came_from[-1] = column
    return came_from
