"""A backfill leaves in a store what the snapshot has, whatever becomes of it on the way."""

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import CollectionError, StoreDiffers, StoreFailed, Superseded
from pipeline.index.audit import deviations
from pipeline.index.backfill import Report, roll_back
from pipeline.index.history import History, Step
from pipeline.index.layout import POINT, STAMP, Layout
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.store import Busy, Refused, VectorStore
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names
from tests.index.faults import Faulty, Killed, killed_at


def _demand_holds(place: Place, snapshot: Snapshot) -> None:
    """Readers get all that a snapshot has, and nothing else."""
    live = place.store.live("docs")
    assert live is not None
    layout = place.layout(snapshot)
    rows = [Rows(part=part) for part in snapshot.parts]
    tables = [snapshot.points([some], layout, 1, None).table for some in rows]
    wanted = pa.concat_tables(tables).select([POINT, STAMP]).to_pylist()
    there = pa.concat_tables(place.store.scan(live)).select([POINT, STAMP]).to_pylist()
    assert sorted(map(repr, there)) == sorted(map(repr, wanted))
    looked = deviations(place.store, live, snapshot, layout, rows, None)
    assert not [one for _, found in looked for one in found]


def _in_small_requests(place: Place) -> Place:
    return place.with_keys(feed={"batch_points": 10, "at_once": 1, "patience": 5.0})


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_first_backfill_that_was_killed_is_gone_on_with(
    place: Place, corpus: Corpus, number: int, done: bool
) -> None:
    place = _in_small_requests(place)
    corpus.add(names(60))
    snapshot = corpus.commit()
    with pytest.raises(Killed):
        place.fill(snapshot, Faulty(place.store, killed_at(number, done)))
    assert place.store.live("docs") is None
    report = place.fill(snapshot)
    kept = 10 * (number if done else number - 1)
    assert (report.collection, report.how) == ("docs_1", "reconciled")
    # one more request may have been on its way
    assert report.written in (60 - kept, 50 - kept)
    _demand_holds(place, snapshot)


def test_an_update_that_was_killed_is_made_right_by_the_next_snapshot_too(
    place: Place, corpus: Corpus
) -> None:
    place = _in_small_requests(place)
    first = corpus.add(names(40))
    place.fill(corpus.commit())
    second = corpus.add(names(40, "more"))
    corpus.bury(first, *range(20))
    with pytest.raises(Killed):
        place.fill(corpus.commit(), Faulty(place.store, killed_at(3)))
    # what the one that was killed has added is in no later snapshot
    corpus.drop(second)
    corpus.add(names(5, "last"))
    snapshot = corpus.commit()
    report = place.fill(snapshot)
    assert report.how == "reconciled"
    _demand_holds(place, snapshot)


def test_a_backfill_killed_between_alias_and_end_keeps_the_collection_before(
    place: Place, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    with monkeypatch.context() as patched:
        original = History.append

        def killed(self: History, entry: Any) -> Any:
            if entry.step is Step.APPLIED:
                raise Killed
            return original(self, entry)

        patched.setattr(History, "append", killed)
        with pytest.raises(Killed):
            place.fill(snapshot, beside=True)
    live = place.store.live("docs")
    assert live != "docs_1"
    report = place.fill(snapshot)
    assert (report.collection, report.previous) == (live, "docs_1")
    assert place.store.owner("docs_1") is not None
    _demand_holds(place, snapshot)


def test_nothing_is_written_where_nothing_has_changed(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    report = place.fill(snapshot, Faulty(place.store, killed_at(1)))
    assert (report.how, report.written) == ("up to date", 0)


def test_another_generation_fills_a_collection_of_its_own(place: Place, corpus: Corpus) -> None:
    path = corpus.add(names(20))
    place.fill(corpus.commit())
    corpus.drop(path)
    corpus.made_by = "another model"
    corpus.add(names(20), salt=1)
    snapshot = corpus.commit()
    report = place.fill(snapshot)
    assert (report.how, report.previous) == ("new collection", "docs_1")
    assert report.collection != "docs_1"
    _demand_holds(place, snapshot)


def test_another_layout_fills_a_collection_of_its_own(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    other = place.with_keys(payload=["title"], index=["title"])
    assert other.fill(snapshot).how == "new collection"
    _demand_holds(other, snapshot)


def test_a_rollback_leads_readers_back_and_forth(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    with pytest.raises(CollectionError, match="has no collection before"):
        roll_back(snapshot, place.spec, place.store)
    second = place.fill(snapshot, beside=True).collection
    assert roll_back(snapshot, place.spec, place.store).live == "docs_1"
    assert place.store.live("docs") == "docs_1"
    assert place.fill(snapshot).how == "up to date"
    assert roll_back(snapshot, place.spec, place.store).live == second
    assert place.store.live("docs") == second


def test_only_the_collection_before_is_kept(place: Place, corpus: Corpus) -> None:
    corpus.add(names(10))
    snapshot = corpus.commit()
    filled = [place.fill(snapshot, beside=True).collection for _ in range(3)]
    there = [name for name in filled if place.store.owner(name) is not None]
    assert there == filled[1:]


def test_an_older_snapshot_replaces_a_newer_one_only_when_told(
    place: Place, corpus: Corpus
) -> None:
    first = corpus.add(names(20))
    old = corpus.commit()
    corpus.bury(first, 0)
    corpus.add(["doc-0"], salt=1)
    new = corpus.commit()
    place.fill(new)
    with pytest.raises(CollectionError, match=r"dataset\.version: 1 is older than version 2"):
        place.fill(old)
    _demand_holds(place, new)
    place.fill(old, older=True)
    _demand_holds(place, old)


def test_a_backfill_stops_when_another_has_begun(
    place: Place, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.write._LOOKS", 0.0)
    for number in range(20):
        corpus.add(names(10, f"file{number}"))
    snapshot = corpus.commit()
    place = _in_small_requests(place)
    others: list[Any] = []
    writes = 0

    def hand(_: str, __: pa.Table, write: Callable[[], None]) -> None:
        nonlocal writes
        writes += 1
        write()
        if not others:
            others.append(place.fill(snapshot))

    with pytest.raises(Superseded, match="another backfill of the same collection has begun"):
        place.fill(snapshot, Faulty(place.store, hand))
    assert writes < 10, "it stops where it is, and not at its end"
    # what the one that was stopped wrote late is found by the next that looks
    place.fill(snapshot, again=[])
    _demand_holds(place, snapshot)


def test_a_collection_that_somebody_dropped_is_made_anew(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    if place.spec.kind == "milvus":
        # which drops none that an alias leads to, and keeps none that leads nowhere
        return
    place.store.drop("docs_1")
    report = place.fill(snapshot)
    assert (report.how, report.points) == ("new collection", 20)
    _demand_holds(place, snapshot)


class _Overtaken(Faulty):
    """A store in which something happens when everything has been written."""

    def __init__(self, store: VectorStore, happens: Callable[[], object]) -> None:
        super().__init__(store, lambda _, __, write: write())
        self._happens = happens

    def settle(self, collection: str, layout: Layout) -> None:
        self._store.settle(collection, layout)
        self._happens()


def test_a_collection_that_a_later_backfill_has_dropped_is_told_as_that(
    place: Place, corpus: Corpus
) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    later = place.with_keys(payload=["year"], index=[])
    reports: list[Report] = []
    overtaken = _Overtaken(place.store, lambda: reports.append(later.fill(snapshot)))
    with pytest.raises(Superseded):
        place.fill(snapshot, overtaken, beside=True)
    assert [report.collection for report in reports] == [place.store.live("docs")]
    assert place.store.count(str(place.store.live("docs"))) == 20


def test_readers_who_were_led_back_are_not_led_on_by_a_backfill_that_began_before(
    place: Place, corpus: Corpus
) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    place.fill(snapshot, beside=True)
    overtaken = _Overtaken(place.store, partial(roll_back, snapshot, place.spec, place.store))
    with pytest.raises(Superseded):
        place.fill(snapshot, overtaken, beside=True)
    assert place.store.live("docs") == "docs_1"


def test_two_that_begin_at_once_leave_one_whole_collection(place: Place, corpus: Corpus) -> None:
    if place.spec.kind == "milvus":
        pytest.skip("Milvus Lite does not support several writers")
    corpus.add(names(40))
    snapshot = corpus.commit()
    endings: list[str] = []

    def fill() -> None:
        try:
            place.fill(snapshot)
            endings.append("done")
        except (Superseded, StoreDiffers, CollectionError) as error:
            endings.append(type(error).__name__)

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(endings) == 2
    place.fill(snapshot, again=[])
    _demand_holds(place, snapshot)


def test_what_was_lost_behind_our_back_is_found_by_its_count(place: Place, corpus: Corpus) -> None:
    corpus.add(names(30))
    snapshot = corpus.commit()
    place.fill(snapshot)
    points = pa.concat_tables(place.store.scan("docs_1"))[POINT].combine_chunks()
    place.store.delete("docs_1", points.slice(0, 7), 99)
    report = place.fill(snapshot)
    assert (report.how, report.written) == ("reconciled", 7)
    _demand_holds(place, snapshot)


def test_a_collection_that_is_gone_is_filled_anew(place: Place, corpus: Corpus) -> None:
    corpus.add(names(10))
    snapshot = corpus.commit()
    place.fill(snapshot)
    history = History(snapshot.folder, place.spec)
    other = place.with_keys(collection="elsewhere")
    assert other.fill(snapshot).how == "new collection"
    newest = history.newest()
    assert newest is not None
    assert newest.live == "docs_1"


def test_a_collection_of_another_dataset_is_left_alone(
    place: Place, corpus: Corpus, tmp_path: Any
) -> None:
    corpus.add(names(10))
    place.fill(corpus.commit())
    other = Corpus(root=tmp_path / "other")
    other.add(names(10))
    snapshot = other.commit()
    with pytest.raises(CollectionError, match="was not filled from this dataset"):
        place.fill(snapshot)


def test_a_store_that_is_busy_is_waited_for(place: Place, corpus: Corpus) -> None:
    place = _in_small_requests(place)
    corpus.add(names(30))
    snapshot = corpus.commit()
    tries: list[int] = []

    def hand(_: str, points: pa.Table, write: Callable[[], None]) -> None:
        tries.append(points.num_rows)
        if len(tries) % 2:
            # done, and the answer lost
            if len(tries) % 4 == 1 and place.spec.kind != "lancedb":
                write()
            raise Busy("slow down", retry_after=0.01)
        write()

    report = place.fill(snapshot, Faulty(place.store, hand))
    assert (report.points, report.rejected) == (30, ())
    _demand_holds(place, snapshot)


def test_threads_take_turns_quickly_while_points_are_written_and_no_longer(
    place: Place, corpus: Corpus
) -> None:
    corpus.add(names(3))
    usual, seen = sys.getswitchinterval(), []

    def hand(_: str, __: pa.Table, write: Callable[[], None]) -> None:
        seen.append(sys.getswitchinterval())
        write()

    place.fill(corpus.commit(), Faulty(place.store, hand))
    assert seen
    assert max(seen) < usual / 10
    assert sys.getswitchinterval() == usual


def test_an_answer_that_was_lost_leaves_no_point_twice(place: Place, corpus: Corpus) -> None:
    place = _in_small_requests(place)
    corpus.add(names(30))
    snapshot = corpus.commit()
    tries: list[int] = []

    def hand(_: str, points: pa.Table, write: Callable[[], None]) -> None:
        write()
        tries.append(points.num_rows)
        if len(tries) == 2:
            raise Busy("the connection was lost")

    place.fill(snapshot, Faulty(place.store, hand))
    _demand_holds(place, snapshot)


def test_a_store_that_stays_busy_fails_the_backfill_and_readers_keep_what_they_have(
    place: Place, corpus: Corpus
) -> None:
    corpus.add(names(10))
    place.fill(corpus.commit())
    corpus.add(names(10, "more"))
    snapshot = corpus.commit()

    def hand(*_: Any) -> None:
        raise Busy("down", retry_after=0.01)

    impatient = place.with_keys(feed={"patience": 0.05})
    with pytest.raises(StoreFailed, match=r"store\.feed\.patience, 0\.05 s: down"):
        impatient.fill(snapshot, Faulty(place.store, hand))
    place.fill(snapshot)
    _demand_holds(place, snapshot)


def _refusing(*ids: str) -> Callable[..., None]:
    def hand(_: str, points: pa.Table, write: Callable[[], None]) -> None:
        if set(points["id"].to_pylist()) & set(ids):
            raise Refused("no such point")
        write()

    return hand


def test_a_point_that_is_refused_is_named_and_the_others_are_written(
    place: Place, corpus: Corpus
) -> None:
    corpus.add(names(150))
    snapshot = corpus.commit()
    report = place.fill(snapshot, Faulty(place.store, _refusing("doc-77")))
    assert [(one.id, one.message) for one in report.rejected] == [("doc-77", "no such point")]
    assert (report.points, report.written) == (149, 149)
    # it is tried again by the next run, without a word
    again = place.fill(snapshot)
    assert (again.how, again.written) == ("reconciled", 1)
    _demand_holds(place, snapshot)


def test_too_many_points_refused_fail_the_backfill(place: Place, corpus: Corpus) -> None:
    corpus.add(names(50))
    snapshot = corpus.commit()
    with pytest.raises(StoreFailed, match=r"refused 1 of 50 points.*'doc-7': no such point"):
        place.fill(snapshot, Faulty(place.store, _refusing("doc-7")))
    assert place.store.live("docs") is None


def test_rows_of_one_name_are_told_and_the_last_is_kept(place: Place, corpus: Corpus) -> None:
    corpus.add(["a", "b", "c", "b"])
    corpus.add(["a"], salt=1)
    snapshot = corpus.commit()
    report = place.fill(snapshot)
    assert (report.points, report.repeated) == (3, 2)
    layout = place.layout(snapshot)
    last = snapshot.points([Rows(part=snapshot.parts[1])], layout, 1, None).table
    found = place.store.fetch("docs_1", layout, last[POINT].to_pylist())
    assert found[STAMP].to_pylist() == last[STAMP].to_pylist()


def test_a_store_that_keeps_other_vectors_is_found_out(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()

    def hand(how: str, points: pa.Table, _: Callable[[], None]) -> None:
        turned = points["single"].combine_chunks().take(pa.array(range(points.num_rows)[::-1]))
        at = points.schema.get_field_index("single")
        wrong = points.set_column(at, points.schema.field(at), turned)
        getattr(place.store, how)("docs_1", wrong)

    with pytest.raises(StoreDiffers, match=r"does not hold what was written to it: .doc-"):
        place.fill(snapshot, Faulty(place.store, hand))
    assert place.store.live("docs") is None


def test_a_snapshot_that_was_collected_is_no_obstacle(
    place: Place, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = corpus.add(names(20))
    place.fill(corpus.commit())
    corpus.bury(first, 3)
    snapshot = corpus.commit()
    corpus.folder.delete(corpus.snapshot(1).entry.manifest)
    report = place.fill(snapshot)
    assert (report.how, report.written, report.deleted) == ("reconciled", 0, 1)
    _demand_holds(place, snapshot)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_history_leaves_the_store_as_its_last_snapshot(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pipeline.index.connect import connected
    from pipeline.index.spec import VectorStoreSpec

    root = tmp_path_factory.mktemp("history")
    corpus = Corpus(root=root / "dataset")
    spec = VectorStoreSpec(kind="lancedb", url=str(root / "store"), collection="docs")
    with connected(spec) as store:
        place = _in_small_requests(Place(spec, store))
        for step in range(data.draw(st.integers(2, 4))):
            _draw_changes(data, corpus, step)
            snapshot = corpus.commit()
            if data.draw(st.booleans()):
                killed = killed_at(data.draw(st.integers(1, 3)), data.draw(st.booleans()))
                try:
                    place.fill(snapshot, Faulty(store, killed))
                except Killed:
                    continue
        place.fill(snapshot)
        _demand_holds(place, snapshot)


def _draw_changes(data: st.DataObject, corpus: Corpus, step: int) -> None:
    """Rows are added, changed and deleted; no name is there twice."""
    for path in list(corpus.parts):
        for at in data.draw(st.sets(st.integers(0, len(corpus.rows[path]) - 1), max_size=3)):
            corpus.bury(path, at)
    there = {row["id"] for row in corpus.living()}
    drawn = data.draw(st.sets(st.integers(0, 40), min_size=1, max_size=15))
    new = [name for name in sorted(f"n{n}" for n in drawn) if name not in there]
    if new:
        corpus.add(new, salt=step)
