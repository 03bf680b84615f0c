"""`nightjar backfill`: a collection of a vector store made to hold a snapshot.

One process writes, with as many requests in flight as the store likes; with `--address`, and more
than a share of rows to write, the tasks of a Ray cluster do.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial

from jobs.printed import printed
from pipeline.dataset import open_dataset
from pipeline.errors import SpecError
from pipeline.index.backfill import Backfill, Report, roll_back
from pipeline.index.connect import connected
from pipeline.index.history import Entry
from pipeline.index.layout import layout_of
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.spec import BackfillSpec
from pipeline.index.store import VectorStore
from pipeline.index.write import Writer, Written
from pipeline.storage import absolute, use_stores

_SHARE = 50_000
"""Rows that one task of a cluster writes: some seconds of work, which may be done twice."""
_TOLD_EVERY = 5.0
_EXAMPLES = 5


def run(spec: BackfillSpec, address: str, *, beside: bool, older: bool, as_json: bool) -> None:
    """The command.

    Args:
        spec: of the backfill.
        address: which Ray, or `none`.
        beside: whether a new collection is filled.
        older: whether an older snapshot may replace a newer one.
        as_json: whether the account is printed as JSON.
    """
    started = time.monotonic()
    with opened(spec) as (snapshot, store):
        job = backfill_of(spec, snapshot, store, address)
        report = job.run(beside=beside, older=older)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
        return
    print(_sentence(report, time.monotonic() - started))
    print(f"readers: {spec.store.collection} leads to {report.collection} in {spec.store.url}")
    for rejected in report.rejected[:_EXAMPLES]:
        print(f"refused by the store: {printed(rejected.id)}: {printed(rejected.message)}")


def roll_back_to_previous(spec: BackfillSpec) -> None:
    """The command with `--rollback`."""
    with opened(spec) as (snapshot, store):
        back = roll_back(snapshot, spec.store, store)
        version = back.held[back.collection].version if back.collection in back.held else None
    what = "what it held" if version is None else f"version {version}"
    print(f"readers: {spec.store.collection} leads to {back.collection} again, with {what}")


@contextmanager
def opened(spec: BackfillSpec) -> Iterator[tuple[Snapshot, VectorStore]]:
    """The snapshot and the store of a spec.

    Raises:
        UserError: one of them is not there, or not as it should be.
    """
    use_stores(spec.storage)
    _demand_apart(spec)
    snapshot = Snapshot.of(open_dataset(spec.dataset.uri, spec.dataset.version))
    # what is asked of the dataset is checked before the store is
    layout_of(snapshot.schema, spec.store)
    with connected(spec.store) as store:
        yield snapshot, store


def _demand_apart(spec: BackfillSpec) -> None:
    """Refuse a store among the files of the dataset."""
    root, url = absolute(spec.dataset.uri).rstrip("/"), spec.store.url.rstrip("/")
    if "://" not in url:
        url = absolute(url)
    if url == root or url.startswith(f"{root}/"):
        raise SpecError(
            f"store.url: {spec.store.url!r} is among the files of the dataset "
            f"{spec.dataset.uri!r}; name a place of its own"
        )


def backfill_of(
    spec: BackfillSpec, snapshot: Snapshot, store: VectorStore, address: str
) -> Backfill:
    """The backfill of a spec.

    Args:
        spec: of it.
        snapshot: that is to be held.
        store: connected.
        address: which Ray, or `none`.
    """
    # in memory, or what Qdrant's and Milvus' clients keep for one process
    is_alone = spec.store.url.startswith(":") or (
        spec.store.is_path and spec.store.kind in ("milvus", "qdrant")
    )
    if address != "none" and is_alone:
        raise SpecError(
            f"store.url: {spec.store.url!r} is in this process alone: leave --address out"
        )
    layout = layout_of(snapshot.schema, spec.store)
    # tasks of a cluster have another working directory
    anywhere = spec.located(absolute).store

    def writer(begun: Entry, fresh: bool) -> Writer:
        return Writer(
            connect=partial(connected, anywhere),
            spec=spec.store,
            snapshot=snapshot,
            layout=layout,
            begun=begun,
            fresh=fresh,
            storage=tuple(spec.storage),
        )

    return Backfill(
        snapshot=snapshot,
        spec=spec.store,
        layout=layout,
        store=store,
        writer=writer,
        write=partial(_write, address, store, _progress()),
    )


def _write(
    address: str,
    store: VectorStore,
    told: Callable[[int], None],
    writer: Writer,
    rows: Sequence[Rows],
) -> Iterable[Written]:
    """Have rows written: here, or by the tasks of a cluster where there are many."""
    if address == "none" or sum(some.count for some in rows) <= _SHARE:
        yield replace(writer, connect=lambda: nullcontext(store), told=told)(rows)
        return
    from pipeline.stages.cluster import connected as on_cluster
    from pipeline.stages.each import each_on_ray

    with on_cluster(address):
        for written in each_on_ray(writer, shares(rows, _SHARE)):
            told(written.points)
            yield written


def shares(rows: Sequence[Rows], most: int) -> Iterator[list[Rows]]:
    """The same rows in lists of about so many; a file is not divided."""
    held: list[Rows] = []
    for some in rows:
        if held and sum(one.count for one in held) + some.count > most:
            yield held
            held = []
        held.append(some)
    if held:
        yield held


def _progress() -> Callable[[int], None]:
    """Say now and then how many points are written."""
    started = last = time.monotonic()
    done = 0

    def told(points: int) -> None:
        nonlocal last, done
        done += points
        now = time.monotonic()
        if now - last >= _TOLD_EVERY:
            last = now
            print(f"{done:,} points, {done / (now - started):,.0f}/s", file=sys.stderr)

    return told


def _sentence(report: Report, seconds: float) -> str:
    told = [f"{report.points:,} points of version {report.version}, {report.how}"]
    if report.how != "up to date":
        told.append(
            f"{report.written:,} written, {report.deleted:,} deleted in {seconds:,.1f} s "
            f"({report.written / seconds:,.0f}/s)"
        )
    if report.shortened:
        told.append(f"{report.shortened:,} documents had too many vectors for one point")
    if report.repeated:
        told.append(f"{report.repeated:,} rows share id, modality and task with another")
    if report.rejected:
        told.append(f"{len(report.rejected):,} points were refused")
    return "; ".join(told)
