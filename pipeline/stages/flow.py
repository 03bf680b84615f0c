"""Flow: the stages joined, here in one process.

`ray_flow` joins the same stages as one Ray Data execution; both take a recipe and units and give
back receipts, and neither commits. In one process it is for tests, for debugging, and for corpora
too small to start a cluster for.
"""

import socket
import time
from collections.abc import Sequence
from functools import partial
from itertools import groupby

from pipeline.stages.board import Board
from pipeline.stages.recipe import Recipe
from pipeline.stages.told import Load, Seat
from pipeline.stages.watchdog import Watch, pulsing, watched
from pipeline.work import Receipt, WorkUnit


def opened_together(units: Sequence[WorkUnit]) -> list[tuple[WorkUnit, ...]]:
    """Units grouped by segment and adapter: each group is read by opening its segment once."""
    return [
        tuple(group) for _, group in groupby(units, key=lambda unit: (unit.segment, unit.adapter))
    ]


def run_in_process(
    recipe: Recipe, units: Sequence[WorkUnit], *, watch: Watch, stall: float
) -> list[Receipt]:
    """Run every unit here, one after another, adapter by adapter.

    Args:
        recipe: of the job.
        units: those that are to be done.
        watch: told how far the run is.
        stall: seconds without any progress after which it is given up.

    Raises:
        Stalled: nothing moved for so long.
    """
    board = Board()
    receipts = watched(
        partial(_run, recipe, sorted(units, key=lambda unit: unit.adapter), board),
        progress=board.read,
        watch=watch,
        stall=stall,
        waiting=board.held,
    )
    watch(board.read())
    return receipts


def _run(recipe: Recipe, units: Sequence[WorkUnit], board: Board) -> list[Receipt]:
    # this process is the user's own: an item that takes its time may have it
    prepare, sink = recipe.prepare(expendable=False), recipe.sink()
    began, fetches, adapter = time.monotonic(), [0.0], units[0].adapter
    embed = recipe.embed(adapter, "auto", fetched=fetches.append)
    board.enlist(
        Load(
            seat=Seat(pool=adapter, host=socket.gethostname()),
            device=embed.device,
            seconds=time.monotonic() - began,
            fetch_seconds=sum(fetches),
        )
    )
    receipts = []
    with pulsing(lambda: prepare.items + embed.packs, board.pulse):
        for group in opened_together(units):
            read = recipe.read(group)
            for unit in group:
                key, shard = unit.key(recipe.fingerprint), unit.segment.shard.uri
                with board.holding("source", key, shard):
                    _, rows = next(read)
                with board.holding("prepare", key, shard):
                    prepared = prepare(rows)
                with board.holding("embed", key, shard):
                    embedded = embed(prepared, unit.adapter)
                with board.holding("sink", key, shard):
                    receipts.append(sink(embedded, key, unit.adapter))
                board.add(receipts[-1])
    return receipts
