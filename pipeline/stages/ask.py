"""Ask: single vectors of queries, made as those of the rows are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.model.engine import Engine
from pipeline.model.processor import Processor
from pipeline.nightly.queries import Query
from pipeline.tasks import task_named


def ask(
    queries: Sequence[Query], processor: Processor, engine: Engine, size: int
) -> NDArray[np.float32]:
    """The vectors of queries, [queries, size].

    Args:
        queries: at least one.
        processor: of the job.
        engine: likewise; it switches between the adapters of the queries.
        size: one of matryoshka_dims.

    Raises:
        RowError: a query cannot be embedded.
    """
    prepared = [processor.text(query.text, task_named(query.task)) for query in queries]
    adapters = [task_named(query.task).adapter for query in queries]
    vectors = np.empty((len(queries), size), np.float32)
    for adapter in dict.fromkeys(adapters):
        at = [n for n, of_query in enumerate(adapters) if of_query == adapter]
        engine.switch(adapter)
        found = engine.embed([prepared[n] for n in at], dims=[size])
        for fault in found.faults.values():
            raise fault
        vectors[at] = found.single
    return vectors
