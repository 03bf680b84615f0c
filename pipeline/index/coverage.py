"""Coverage: what of the queries and judgements of an evaluation the numbers are about.

Nothing is left out without being counted. A relevant document that the snapshot has not cannot be
found, and counts as not found: whether it should be there is for whoever reads the count to say.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SpecError
from pipeline.index.beir import Asked
from pipeline.index.documents import Documents
from pipeline.ranking import relevant
from pipeline.tasks import Task, answering


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What is counted of an evaluation."""

    queries: int
    """That are judged: means are over these."""
    unjudged: int
    """Queries without a judgement, which are left out."""
    astray: int
    """Judgements of queries that are not there, which are left out."""
    nothing_relevant: int
    """Queries whose judged documents are all irrelevant; each counts as 0, as in trec_eval."""
    judged: int
    """Documents with a judgement."""
    judged_absent: int
    """Of these, those that the snapshot has not."""
    relevant: int
    """Documents that are relevant to a query."""
    relevant_absent: int
    """Of these, those that the snapshot has not: they count as not found."""
    unanswerable: int
    """Queries to which something is relevant, and none of it is in the snapshot."""
    identical: int
    """Queries that have the id of a document, which is left out of what they find."""
    identical_relevant: int
    """Of these, those to which that document is relevant."""


def barred(
    queries: Iterable[str], documents: Documents, ignore_identical: bool
) -> NDArray[np.int64]:
    """[Q] the number of the document that has a query's id; -1 for none.

    Args:
        queries: their ids.
        documents: that may be found.
        ignore_identical: whether they are to be left out at all.
    """
    number_of = {name: n for n, name in enumerate(documents.names)} if ignore_identical else {}
    return np.array([number_of.get(name, -1) for name in queries], np.int64)


def coverage_of(
    asked: Asked, documents: Documents, barred_Q: NDArray[np.int64], key: str, task: Task
) -> Coverage:
    """What an evaluation covers.

    Args:
        asked: queries and judgements.
        documents: that may be found.
        barred_Q: see `barred`.
        key: of the spec that names the judgements.
        task: of the queries.

    Raises:
        SpecError: no document is relevant, or none that is, is there.
    """
    there = frozenset(documents.names)
    wanted = {name: relevant(grades) for name, grades in asked.judgements.items()}
    judged = frozenset(name for grades in asked.judgements.values() for name in grades)
    everything = frozenset[str]().union(*wanted.values())
    if not everything:
        raise SpecError(f"{key}: no document is relevant to any query: no score is above 0")
    if not everything & there:
        raise SpecError(
            f"{key}: none of the {len(everything):,} relevant documents is among the "
            f"{len(there):,} of task {answering(task).name} in the dataset; expected ids such as "
            f"{documents.names[0]!r}, and found {min(everything)!r}"
        )
    same = {
        name: documents.names[number]
        for name, number in zip(asked.texts, barred_Q, strict=True)
        if number >= 0
    }
    return Coverage(
        queries=len(asked.texts),
        unjudged=asked.unjudged,
        astray=asked.astray,
        nothing_relevant=sum(not names for names in wanted.values()),
        judged=len(judged),
        judged_absent=len(judged - there),
        relevant=len(everything),
        relevant_absent=len(everything - there),
        unanswerable=sum(bool(names) and not names & there for names in wanted.values()),
        identical=len(same),
        identical_relevant=sum(document in wanted[name] for name, document in same.items()),
    )
