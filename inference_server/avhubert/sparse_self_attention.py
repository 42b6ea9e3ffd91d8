"""Attention of hypotheses to their own units alone, without looking at all that is in the cache."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

# A look at a unit by its number takes so many times as long as one in a product with all slots (measured with widths of
# head from 64 to 192, and 5 to 50 hypotheses).
_SLOTS_PER_TOKEN = 6


class AncestorIndex:
    """Which units each hypothesis continues, as lists of slots.

    Hypotheses that have little in common need many slots: fifty of forty units need up to two thousand, of which each
    sees forty. Here a product is worked out for each unit that a hypothesis sees, where attention with a mask works out
    one for every slot. torch has the two sums that this takes, without a copy of the keys and values that are looked
    up: ``embedding_bag`` with weights, and its derivative by the weights.
    """

    def __init__(self, ancestor_mask: Tensor, lengths: Tensor, row_slots: int, heads: int) -> None:
        """List what is seen.

        Args:
            ancestor_mask: bool (C, W, slots), in each row of a clip's as many as it has units.
            lengths: (C,), how many units each clip's hypotheses have, the newest included.
            row_slots: how many slots of the cache belong to a clip, used or not.
            heads: of attention.
        """
        clips, width, _ = ancestor_mask.shape
        clip, hypothesis, slot = ancestor_mask.nonzero(as_tuple=True)
        rows, lengths = clip * width + hypothesis, lengths.repeat_interleave(width)
        places = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
        longest = int(lengths.max())
        # Behind its end a row goes on with its clip's first slot, whose weight will be 0: numbers of another clip
        # might not be finite.
        first = torch.arange(clips).repeat_interleave(width) * row_slots
        slots = first.unsqueeze(1).repeat(1, longest)
        slots[rows, places] = clip * row_slots + slot
        of_heads = slots.unsqueeze(1) * heads + torch.arange(heads).unsqueeze(1)
        self._indices = of_heads.flatten(0, 1)
        self._flat = self._indices.flatten()
        bags = len(self._indices)
        self._starts = torch.arange(0, bags * longest, longest)
        self._bag_of = torch.arange(bags).repeat_interleave(longest)
        self._beyond: Tensor | None = None
        if bool((lengths < longest).any()):
            beyond = torch.arange(longest) >= lengths.unsqueeze(1)
            self._beyond = beyond.repeat_interleave(heads, dim=0)

    @staticmethod
    def is_worthwhile(seen: Tensor, units: Tensor, dtype: torch.dtype) -> bool:
        """Whether lists are faster than a product with all slots, and possible here."""
        few = seen.shape[2] > _SLOTS_PER_TOKEN * int(units.max())
        return few and seen.device.type == "cpu" and dtype == torch.float32 and _supports_products()

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend to the units listed.

        Args:
            queries: (C, W, D).
            keys: (clips, row_slots, D), contiguous.
            values: likewise.

        Returns:
            (C, W, D).
        """
        bags, longest = self._indices.shape
        asked = queries.reshape(bags, -1)
        dim = asked.shape[1]
        scores = _compute_products(
            asked * dim**-0.5, keys.view(-1, dim), self._flat, self._starts, self._bag_of
        )
        scores = scores.view(bags, longest)
        if self._beyond is not None:
            scores = scores.masked_fill(self._beyond, float("-inf"))
        found = functional.embedding_bag(
            self._indices, values.view(-1, dim), per_sample_weights=scores.softmax(dim=-1), mode="sum"
        )
        return found.view(queries.shape)


def _compute_products(
    asked: Tensor, table: Tensor, indices: Tensor, starts: Tensor, bag_of: Tensor
) -> Tensor:
    """Of each index the scalar product of its row in the table and what its bag asks: (N,)."""
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001 - opaque in Python
        asked, table, indices, starts, bag_of, 0
    )
    return products


@cache
def _supports_products() -> bool:
    """Whether this version of torch has the operation by this name, and it gives what it should."""
    asked, table = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [3.0, 4.0]])
    indices, starts, bag_of = torch.tensor([1, 0, 1]), torch.tensor([0, 2]), torch.tensor([0, 0, 1])
    try:
        found = _compute_products(asked, table, indices, starts, bag_of)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, torch.tensor([11.0, 3.0, 4.0]))
