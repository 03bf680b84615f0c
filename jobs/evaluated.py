"""What an evaluation has found, as a record and as a table with the sentences that belong to it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.printed import printed
from pipeline.index.alignment import Alignment
from pipeline.index.coverage import Coverage
from pipeline.index.evaluate import MEASURES, Measured, Result
from pipeline.index.spec import EvaluateSpec
from pipeline.software import installed
from pipeline.tasks import answering, task_named


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation has found."""

    spec: EvaluateSpec
    """That asked for it."""
    version: int
    """Of the dataset."""
    documents: int
    """That may be found."""
    rows: int
    """That they have."""
    truncated: int
    """Queries that were cut to `model.max_length` tokens."""
    coverage: Coverage
    """Of the queries and judgements."""
    results: Sequence[Result]
    """Of each kind of vector: single vectors by their size, then multi-vectors."""
    alignment: Alignment | str
    """Of texts and images; why there is none."""

    @property
    def title(self) -> str:
        """What was asked of what."""
        return (
            f"{self.coverage.queries:,} queries of {self.spec.queries.task} on {self.documents:,} "
            f"documents of {answering(task_named(self.spec.queries.task)).name}, "
            f"version {self.version}"
        )

    def as_record(self) -> dict[str, Any]:
        """As JSON has it."""
        is_aligned = isinstance(self.alignment, Alignment)
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            # how stores are reached is nobody's business
            "spec": self.spec.model_dump(mode="json", exclude={"storage"}),
            "version": self.version,
            "documents": self.documents,
            "rows": self.rows,
            "coverage": asdict(self.coverage) | {"truncated": self.truncated},
            "results": [asdict(result) for result in self.results],
            "alignment": asdict(self.alignment) if isinstance(self.alignment, Alignment) else None,
            "no_alignment": None if is_aligned else self.alignment,
            "versions": installed(("nightjar", "torch", "numpy")),
        }


def show(found: Evaluation) -> None:
    """Print a table, and what has to be known to read it."""
    print(f"{found.title} of {printed(found.spec.dataset.uri)}")
    table = Table(box=None, pad_edge=False)
    for head in ("vectors", "bytes", *map(_spelt, MEASURES)):
        table.add_column(head, justify="left" if head == "vectors" else "right")
    for result in found.results:
        measured = [result.measures[name] for name in MEASURES]
        table.add_row(
            f"{result.vectors} {result.dim}",
            f"{result.bytes_per_document:,.0f}",
            *(f"{one.mean:.3f}" for one in measured),
        )
        table.add_row("", "", *map(_interval, measured), style="dim")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for sentence in sentences(found):
        print(sentence)


def sentences(found: Evaluation) -> Iterator[str]:
    """What was left out, cut or not there, each in a sentence; nothing of what is as it should."""
    covered = found.coverage
    yield "means over the queries, with 95 % intervals; bytes are a document's"
    for result in found.results:
        if result.reranked is not None:
            yield (
                f"{result.vectors} {result.dim}: MaxSim of the {result.reranked:,} documents that "
                "single vectors find first, since there are more vectors than multi.exact_vectors"
            )
    counted = {
        "queries without a judgement, left out": covered.unjudged,
        "judgements of queries that are not there, left out": covered.astray,
        "queries to which nothing is relevant, counted as 0": covered.nothing_relevant,
        "queries of whose relevant documents the dataset has none, counted as 0": (
            covered.unanswerable
        ),
        "queries that have the id of a document, and do not find it (ignore_identical_ids)": (
            covered.identical
        ),
        "of these, with that document as relevant (set ignore_identical_ids to false)": (
            covered.identical_relevant
        ),
        "queries cut to model.max_length": found.truncated,
    }
    yield from (f"{what}: {count:,}" for what, count in counted.items() if count)
    if covered.judged_absent:
        yield (
            f"judged documents that are not in the dataset: {covered.judged_absent:,} of "
            f"{covered.judged:,}; relevant ones, not found: {covered.relevant_absent:,} of "
            f"{covered.relevant:,}"
        )
    if isinstance(found.alignment, Alignment):
        yield (
            f"cosine of the text and the image of a document: {found.alignment.matching:.3f} on "
            f"average ({found.alignment.pairs:,} pairs); of different documents "
            f"{found.alignment.random:.3f} ({found.alignment.random_pairs:,} pairs)"
        )
    else:
        yield f"cosine of texts and images: none, {found.alignment}"


def _spelt(measure: str) -> str:
    return measure.replace("ndcg", "nDCG").replace("mrr", "MRR")


def _interval(measured: Measured) -> str:
    return f"{measured.low:.3f}-{measured.high:.3f}"
