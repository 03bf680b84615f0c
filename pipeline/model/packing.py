"""Which items share a forward pass: as many as fill a token budget, and none is padded.

A pack is a plain concatenation, so its cost is the sum of its items'. Items are placed longest
first, each into the fullest pack that still has room (best-fit decreasing: Johnson 1974, at most
11/9 of the fewest packs, and on log-normal lengths 99 % full). The longest come first so that a
pack too large for the device shows at once; equal lengths come to lie together, where attention
takes them as one batch. An item above the budget passes alone.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Indexes of the items of each pack; every item is in one pack.

    Args:
        costs: of each item, in tokens (image patches count as tokens of the vision tower).
        budget: of one pack, in the same unit.
    """
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []
    """(what is left, which pack), ascending."""
    for item in sorted(range(len(costs)), key=lambda index: -costs[index]):
        cost = costs[item]
        at = bisect_left(room, (cost, -1))
        if at == len(room):
            packs.append([item])
            left, which = budget - cost, len(packs) - 1
        else:
            left, which = room.pop(at)
            packs[which].append(item)
            left -= cost
        if left > 0:
            insort(room, (left, which))
    return packs
