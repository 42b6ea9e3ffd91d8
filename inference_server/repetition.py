"""Finds phrases that the search of a model repeats in a loop, as models do with noise and with speech that they cannot read."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

# A phrase of up to this many tokens or words that follows itself more often than people repeat it is a loop.
MAX_LOOP_LENGTH, MAX_REPEATS = 8, 4


def find_loop_length(items: Sequence[Hashable]) -> int:
    """Return the length of the phrase that fills the end of ``items`` in a loop; 0 if there is none."""
    for length in range(1, MAX_LOOP_LENGTH + 1):
        end = items[-length * (MAX_REPEATS + 1) :]
        if len(end) == length * (MAX_REPEATS + 1) and list(end) == list(items[-length:]) * (MAX_REPEATS + 1):
            return length
    return 0


def remove_loops(items: Sequence[Hashable]) -> list[int]:
    """Return the indices of the items that remain if each phrase in a loop is kept once."""
    kept: list[int] = []
    phrase: list[Hashable] = []  # of the loop that is being skipped
    skipped = 0
    for index, item in enumerate(items):
        if phrase and item == phrase[skipped % len(phrase)]:
            skipped += 1
            continue
        phrase, skipped = [], 0
        kept.append(index)
        if length := find_loop_length(
            [items[other] for other in kept[-MAX_LOOP_LENGTH * (MAX_REPEATS + 1) :]]
        ):
            del kept[-length * MAX_REPEATS :]
            phrase = [items[other] for other in kept[-length:]]
    return kept
