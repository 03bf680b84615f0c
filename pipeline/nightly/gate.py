"""The gate: whether readers get a snapshot, or whether a person is to look at it first.

    counts      rows lost or gained, against the snapshot that readers have
    set aside   limits.quarantine_share
    soundness   every new vector, read back from the store, is finite and of length one
    collapse    too many new vectors as good as equal, though their contents differ
    shift       the new vectors of a task and modality are elsewhere than those before them
    quality     queries find their documents worse than in the snapshot that readers have

All files are looked at that the snapshot before has not: what readers have has passed before. Of
fewer than 32 vectors nothing is said about collapse and shift.

The shift of X against Y is the distance between their means as a share of the distance between two
vectors of Y, sqrt(|E x - E y|^2 / E |y - y'|^2): 0 for one distribution, 1 and more for another
region of the sphere. The square in the numerator is estimated without bias (each mean of products
leaves out products of a vector with itself; Gretton et al. 2012, equation 3, with a linear kernel),
so that few vectors do not look shifted because they are few.

Legend: N, M rows, D size of a vector.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.commit import Snapshot
from pipeline.dataset import lost_files
from pipeline.folder import Folder
from pipeline.log import LogEntry, newest_entry, read_entry
from pipeline.manifest import DATA, LINKS, VECTORS, Manifest, Part, read_manifest
from pipeline.nightly.evidence import Look, Sample, Seen, few_of, spread, total
from pipeline.nightly.quality import NDCG, RECALL, Grade, Hits, Question, graded, means
from pipeline.nightly.queries import Query
from pipeline.spec import GateSpec, LimitsSpec
from pipeline.verdict import Verdict, set_aside_too_much
from pipeline.work import Receipt

_FEWEST = 32
"""Vectors of which something can be said."""
_IDENTICAL = 0.999
"""The cosine of vectors that are as good as equal."""
_MISSING = 0.99
"""The share of queries that may have no document in a snapshot: documents come and go."""
_QUERY_SET = "query_set"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that was measured."""

    check: str
    """What was, by its key in the spec."""
    value: float
    """What came out."""
    limit: float | None
    """How much may; None for any."""
    sentence: str
    """Both in words."""

    @property
    def refuses(self) -> bool:
        """Whether it is too much."""
        return self.limit is not None and not self.value <= self.limit


@dataclass(frozen=True, kw_only=True)
class QuerySet:
    """What is asked of every snapshot."""

    queries: Sequence[Query]
    """At least one."""
    embed: Callable[[], NDArray[np.float32]]
    """Their vectors, [queries, D], made in the way of the snapshot."""
    column: str
    """The single vectors that are searched."""

    @property
    def digest(self) -> str:
        """Names them."""
        return hashlib.sha256(repr(self.queries).encode()).hexdigest()


@dataclass(kw_only=True)
class Gate:
    """The gate of one run."""

    folder: Folder
    """The dataset's root."""
    spec: GateSpec
    """What must be passed."""
    limits: LimitsSpec
    """Of the job."""
    publish: bool
    """Whether readers get what has passed."""
    look: Callable[[Sequence[Look]], Iterable[Seen]]
    """Looks at files, perhaps on many hosts."""
    search: Callable[[Question, Sequence[Part]], Iterable[Hits]]
    """Searches files, likewise."""
    query_set: QuerySet | None = None
    """What is asked; None for nothing."""
    findings: list[Finding] = field(default_factory=list)
    """What was measured, of the snapshot that was judged last."""

    def judge(self, snapshot: Snapshot, receipts: Sequence[Receipt]) -> Verdict:
        """Whether readers get a snapshot.

        Args:
            snapshot: all of whose files are there.
            receipts: of what was done for it.
        """
        before = self._published()
        held = (
            Manifest.of((), ()) if before is None else read_manifest(self.folder, before.manifest)
        )
        found = [*self._counts(snapshot.manifest, before)]
        found += self._vectors(snapshot, held, before)
        measured, drops = self._quality(snapshot, held, before)
        self.findings = found + drops
        refused = [finding.sentence for finding in self.findings if finding.refuses]
        aside = set_aside_too_much(snapshot.manifest, receipts, self.limits)
        if aside is not None:
            refused.append(aside)
        return Verdict(
            publish=self.publish and not refused, refused=tuple(refused), quality=measured
        )

    def _published(self) -> LogEntry | None:
        """The snapshot that readers have."""
        newest = newest_entry(self.folder)
        if newest is None or not newest.published:
            return None
        return read_entry(self.folder, newest.published)

    def _counts(self, manifest: Manifest, before: LogEntry | None) -> Iterator[Finding]:
        if before is None or not before.rows:
            return
        change = manifest.rows / before.rows - 1
        limits = {"shrink": (self.spec.shrink, -change), "growth": (self.spec.growth, change)}
        for check, (limit, value) in limits.items():
            if value > 0:
                more = "fewer" if check == "shrink" else "more"
                yield Finding(
                    check=check,
                    value=value,
                    limit=limit,
                    sentence=f"nightly.gate.{check}: {_told(limit)}, and it has {manifest.rows:,} "
                    f"rows, {value:.1%} {more} than the {before.rows:,} of version "
                    f"{before.version}",
                )

    def _vectors(
        self, snapshot: Snapshot, held: Manifest, before: LogEntry | None
    ) -> Iterator[Finding]:
        # whoever made them: vectors of a run that was refused or cut off may be linked to
        new = [
            replace(part, kind=DATA)
            for part in snapshot.manifest.parts(DATA, VECTORS)
            if part.file.path not in held.sizes
        ]
        if not new:
            return
        seen = total(self.look(spread(new)))
        yield Finding(
            check="unsound",
            value=seen.unsound,
            limit=0,
            sentence=f"{seen.unsound:,} of {seen.rows:,} new rows have a vector that is not "
            "finite, or not of length 1",
        )
        for column, vectors_ND in seen.sample.vectors.items():
            if len(vectors_ND) >= _FEWEST:
                yield self._collapse(column, vectors_ND, seen.sample.contents)
        enough = max(Counter(seen.sample.groups).values(), default=0) >= _FEWEST
        if enough and before is not None and before.fingerprint == snapshot.fingerprint:
            # a retry mends a snapshot of which some are
            lost = lost_files(self.folder, held)
            there = [part for part in held.parts(DATA) if part.file.path not in lost]
            yield from self._shifts(seen.sample, total(self.look(few_of(there))).sample, before)

    def _collapse(
        self, column: str, vectors_ND: NDArray[np.float32], contents: Sequence[bytes]
    ) -> Finding:
        share = near_identical(vectors_ND, contents)
        return Finding(
            check="near_identical",
            value=share,
            limit=self.spec.near_identical,
            sentence=f"nightly.gate.near_identical: {_told(self.spec.near_identical)}, and "
            f"{share:.1%} of the {len(contents):,} new {column} vectors looked at are as good as "
            "equal to that of another content",
        )

    def _shifts(self, new: Sample, old: Sample, before: LogEntry) -> Iterator[Finding]:
        for group in dict.fromkeys(new.groups):
            of_new = np.array([one == group for one in new.groups])
            of_old = np.array([one == group for one in old.groups], np.bool_)
            if min(of_new.sum(), of_old.sum()) < _FEWEST:
                continue
            for column, vectors in new.vectors.items():
                value = shift(vectors[of_new], old.vectors[column][of_old])
                yield Finding(
                    check="shift",
                    value=value,
                    limit=self.spec.shift,
                    sentence=f"nightly.gate.shift: {_told(self.spec.shift)}, and the new {column} "
                    f"vectors of {group} are {value:.2f} away from those of version "
                    f"{before.version} (by {of_new.sum():,} and {of_old.sum():,} of them)",
                )

    def _quality(
        self, snapshot: Snapshot, held: Manifest, before: LogEntry | None
    ) -> tuple[dict[str, float | str], list[Finding]]:
        """What the queries find, for the entry, and what is to be said of it."""
        asked = self.query_set
        if asked is None:
            return {}, []
        question = Question(vectors=asked.embed(), queries=asked.queries, column=asked.column)
        now = self._grades(question, snapshot.manifest)
        lost = 1 - len(now) / len(asked.queries)
        missing = Finding(
            check="queries",
            value=lost,
            limit=_MISSING,
            sentence=f"nightly.gate.queries: of {len(asked.queries):,} queries {lost:.1%} have no "
            "document in it; the ids may be mistyped",
        )
        if not now:
            return {}, [missing]
        measured: dict[str, float | str] = {**means(now.values()), _QUERY_SET: asked.digest}
        if before is None:
            return measured, [missing]
        if before.fingerprint == snapshot.fingerprint and not lost_files(self.folder, held):
            then = self._grades(question, held)
            both = now.keys() & then.keys()
            if both:
                pairs = (means(now[n] for n in both), means(then[n] for n in both))
                return measured, [missing, *self._drops(*pairs, before)]
        elif before.quality.get(_QUERY_SET) == asked.digest:
            # vectors of another generation, or that are lost, are not to be searched
            was = {check: float(before.quality[check]) for check in (NDCG, RECALL)}
            return measured, [missing, *self._drops(means(now.values()), was, before)]
        return measured, [missing]

    def _grades(self, question: Question, manifest: Manifest) -> dict[int, Grade]:
        return graded(question.queries, self.search(question, manifest.parts(DATA, LINKS)))

    def _drops(
        self, now: dict[str, float], then: dict[str, float], before: LogEntry
    ) -> Iterator[Finding]:
        for check, value in now.items():
            yield Finding(
                check=check,
                value=then[check] - value,
                limit=self.spec.quality_drop,
                sentence=f"nightly.gate.quality_drop: {self.spec.quality_drop:g}, and the {check} "
                f"of the queries is {value:.3f}, and {then[check]:.3f} with version "
                f"{before.version}",
            )


def near_identical(vectors_ND: NDArray[np.float32], contents: Sequence[bytes]) -> float:
    """The share of vectors that are as good as equal to one of another content."""
    keys = {content: number for number, content in enumerate(dict.fromkeys(contents))}
    content_N = np.array([keys[content] for content in contents])
    cosines_NN = vectors_ND @ vectors_ND.T
    cosines_NN[content_N[:, None] == content_N] = -1
    return float(np.mean(cosines_NN.max(axis=1) > _IDENTICAL))


def shift(new_ND: NDArray[np.float32], old_MD: NDArray[np.float32]) -> float:
    """How far vectors of length one are from others; at least two of each."""
    within_new, within_old = _mean_product(new_ND), _mean_product(old_MD)
    between = float(new_ND.mean(axis=0, dtype=np.float64) @ old_MD.mean(axis=0, dtype=np.float64))
    squared = within_new + within_old - 2 * between
    return math.sqrt(max(squared, 0.0) / max(2 * (1 - within_old), 1e-12))


def _mean_product(vectors_ND: NDArray[np.float32]) -> float:
    """Of two different ones."""
    count = len(vectors_ND)
    total_D = vectors_ND.sum(axis=0, dtype=np.float64)
    own = np.einsum("nd,nd->", vectors_ND, vectors_ND, dtype=np.float64)
    return float(total_D @ total_D - own) / (count * (count - 1))


def _told(limit: float | None) -> str:
    return "null" if limit is None else f"{limit:g}"
