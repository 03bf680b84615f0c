"""Milvus: what only it has, in a file and over gRPC."""

import datetime
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from pipeline.errors import CollectionError, SpecError, StoreFailed
from pipeline.index.audit import deviations
from pipeline.index.connect import connected
from pipeline.index.exact import ExactSearch
from pipeline.index.filters import parse_filter
from pipeline.index.layout import POINT, SINGLE, Layout, VectorType
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import Busy, Question
from pipeline.index.stores.milvus_rows import expression
from pipeline.index.typed import typed
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names
from tests.index.faults import Faulty, Killed
from tests.index.milvus_server import Hand, Process, Proxy, by_hand


@pytest.fixture
def kind() -> str:
    return "milvus"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that nobody kills."""
    server = Process(tmp_path_factory.mktemp("milvus") / "data")
    yield server
    server.kill()


@contextmanager
def _placed(url: str, collection: str = "docs", **keys: Any) -> Iterator[Place]:
    spec = VectorStoreSpec(kind="milvus", url=url, collection=collection, index=["year"], **keys)
    with connected(spec) as store:
        yield Place(spec, store)


@contextmanager
def _by_hand(directory: Path, hand: Hand, **keys: Any) -> Iterator[Place]:
    with by_hand(directory / "by_hand", hand) as url, _placed(url, **keys) as place:
        yield place


@pytest.fixture
def client(place: Place) -> Iterator[MilvusClient]:
    """Another connection to the same file."""
    found = MilvusClient(place.spec.url, dedicated=True)
    yield found
    found.close()


def _table(place: Place, snapshot: Snapshot, run: int = 1) -> pa.Table:
    tables = [
        snapshot.points([Rows(part=part)], place.layout(snapshot), run, None).table
        for part in snapshot.parts
    ]
    return pa.concat_tables(tables)


def _demand_holds(place: Place, snapshot: Snapshot) -> None:
    live = place.store.live(place.spec.collection)
    assert live is not None
    wanted = sorted(_table(place, snapshot)[POINT].to_pylist())
    assert sorted(pa.concat_tables(place.store.scan(live))[POINT].to_pylist()) == wanted
    rows = [Rows(part=part) for part in snapshot.parts]
    looked = deviations(place.store, live, snapshot, place.layout(snapshot), rows, None)
    assert not [one for _, found in looked for one in found]


def test_columns_have_types_that_a_person_would_choose(
    place: Place, client: MilvusClient, corpus: Corpus
) -> None:
    corpus.add(names(5))
    place.fill(corpus.commit())
    there = client.describe_collection("docs")
    assert {field["name"]: (field["type"].name, field["params"]) for field in there["fields"]} == {
        "nightjar_point": ("VARCHAR", {"max_length": 32}),
        "nightjar_stamp": ("INT64", {}),
        "nightjar_run": ("INT64", {}),
        "id": ("VARCHAR", {"max_length": 65_535}),
        "modality": ("VARCHAR", {"max_length": 65_535}),
        "task": ("VARCHAR", {"max_length": 65_535}),
        "title": ("VARCHAR", {"max_length": 65_535}),
        "year": ("INT64", {}),
        "weight": ("DOUBLE", {}),
        "draft": ("BOOL", {}),
        "seen": ("INT64", {}),
        "tags": ("VARCHAR", {"max_length": 65_535}),
        "single": ("FLOAT_VECTOR", {"dim": 16}),
    }
    row = corpus.living()[0]
    (found,) = client.query("docs", filter='id == "doc-0"', output_fields=["seen"])
    since = row["seen"].replace(tzinfo=datetime.UTC).timestamp()
    assert found["seen"] == since * 1_000_000
    indexes = {one: client.describe_index("docs", one) for one in ("single", "year")}
    assert [one["index_type"] for one in indexes.values()] == ["FLAT", "INVERTED"]


AWKWARD = ["it's", 'a "b"', "a\\b", "a\\nb", "a\nb\tc\rd", "é\u2028😀", "", "\x01", "%_"]


def test_texts_are_compared_whatever_is_in_them(place: Place, corpus: Corpus) -> None:
    for at, text in enumerate(AWKWARD):
        corpus.add([f"doc-{at}"], title=text)
    snapshot = corpus.commit()
    place.fill(snapshot)
    vectors = np.atleast_2d(corpus.living()[0]["embedding"])
    for text in AWKWARD:
        for form in (f"title == {text!r}", f"title != {text!r}", f"title in [{text!r}, 'no']"):
            question = Question(
                using=SINGLE, vectors=vectors, most=20, condition=parse_filter(form)
            )
            found = place.store.search("docs_1", place.layout(snapshot), question)
            here = ExactSearch(snapshot).search(question)
            wanted = [hit.payload["id"] for hit in here]
            assert [hit.payload["id"] for hit in found] == wanted, form
            assert len(wanted) == (len(AWKWARD) - 1 if "!=" in form else 1)


@pytest.mark.parametrize("text", ['title != "a"', 'not title == "a"', 'title not in ["a"]'])
def test_what_is_turned_round_says_that_null_is_not_meant(text: str) -> None:
    # not every server of Milvus agrees on it; Milvus Lite does so of the first two alone
    assert expression(parse_filter(text)).endswith("and title is not null")


def test_times_are_compared_to_the_microsecond_and_before_1970(
    place: Place, corpus: Corpus
) -> None:
    moment = datetime.datetime(1969, 7, 20, 20, 17, 40)
    corpus.add(["eagle"], seen=moment)
    corpus.add(["later"], seen=moment + datetime.timedelta(milliseconds=1))
    corpus.add(["never"], seen=None)
    snapshot = corpus.commit()
    place.fill(snapshot)
    layout = place.layout(snapshot)
    vectors = np.atleast_2d(corpus.living()[0]["embedding"])
    for operator, found in [("==", []), ("<", ["eagle"]), (">=", ["later"]), ("!=", 2)]:
        text = f'seen {operator} "1969-07-20T20:17:40.000001Z"'
        question = Question(
            using=SINGLE,
            vectors=vectors,
            most=9,
            condition=typed(parse_filter(text), dict(layout.payload)),
        )
        hits = place.store.search("docs_1", layout, question)
        assert found in ([hit.payload["id"] for hit in hits], len(hits)), operator
        if found == ["eagle"]:
            assert hits[0].payload["seen"] == moment.replace(tzinfo=datetime.UTC)


def test_a_text_too_long_is_refused_by_its_id_and_never_cut(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    # of 65,534 and 65,536 bytes, both far fewer characters than are allowed
    corpus.add(["fits"], title="é" * 32_767)
    corpus.add(["does not"], title="é" * 32_768)
    snapshot = corpus.commit()
    report = place.with_keys(feed={"rejected_share": 0.5}).fill(snapshot)
    (rejected,) = report.rejected
    assert rejected.id == "does not"
    assert rejected.message == "title has 65,536 bytes, and Milvus takes 65,535"
    assert report.points == 21


def test_vectors_of_half_precision_come_back_as_they_were(place: Place) -> None:
    layout = Layout(
        single=VectorType(size=8, dtype="float16"),
        multi=None,
        payload=(),
        indexed=(),
        approximate=False,
    )
    vectors = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float16)
    cells = [pa.array([bytes([n]) * 16 for n in range(5)], layout.schema.field(0).type)]
    cells += [pa.array([n] * 5, pa.int64()) for n in (7, 1)]
    cells += [pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)]
    points = pa.table(cells, schema=layout.schema)
    place.store.create("docs_1", layout, "owner")
    place.store.load("docs_1", points)
    found = place.store.fetch("docs_1", layout, points[POINT].to_pylist()).sort_by(POINT)
    assert found.equals(points)


def test_a_scan_of_many_pages_names_every_point_once(
    place: Place, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.stores.milvus._PAGE", 7)
    corpus.add(names(60))
    snapshot = corpus.commit()
    place.fill(snapshot)
    pages = list(place.store.scan("docs_1"))
    assert len(pages) == 9
    assert max(page.num_rows for page in pages) < 30
    _demand_holds(place, snapshot)


def test_a_request_that_is_too_large_is_divided(
    place: Place, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.stores.milvus_wire._LARGEST", 2_000)
    corpus.add(names(60))
    snapshot = corpus.commit()
    sizes: list[int] = []

    def hand(_: str, points: pa.Table, write: Callable[[], None]) -> None:
        sizes.append(points.num_rows)
        write()

    report = place.fill(snapshot, Faulty(place.store, hand))
    assert (report.points, report.rejected) == (60, ())
    assert sizes[:3] == [60, 30, 15]
    _demand_holds(place, snapshot)


def test_indexes_that_a_killed_backfill_has_left_out_are_made(
    place: Place, client: MilvusClient, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MilvusClient, "create_index", killed)
        with pytest.raises(Killed):
            place.fill(snapshot)
    assert client.list_indexes("docs_1") == []
    assert place.fill(snapshot).collection == "docs_1"
    assert set(client.list_indexes("docs_1")) == {"single", "title", "year"}
    _demand_holds(place, snapshot)


def test_an_index_that_approximates_finds_the_nearest(
    place: Place, client: MilvusClient, corpus: Corpus
) -> None:
    corpus.add(names(300))
    snapshot = corpus.commit()
    place = place.with_keys(vector_index=True)
    place.fill(snapshot)
    assert client.describe_index("docs_1", "single")["index_type"] == "HNSW"
    row = corpus.living()[200]
    question = Question(using=SINGLE, vectors=np.atleast_2d(row["embedding"]), most=1)
    (hit,) = place.store.search("docs_1", place.layout(snapshot), question)
    assert (hit.payload["id"], hit.score) == ("doc-200", pytest.approx(1, abs=1e-5))


def test_a_collection_of_another_metric_is_refused(
    place: Place, client: MilvusClient, corpus: Corpus
) -> None:
    corpus.add(names(5))
    snapshot = corpus.commit()
    place.fill(snapshot)
    client.release_collection("docs_1")
    client.drop_index("docs_1", "single")
    indexes = client.prepare_index_params()
    indexes.add_index("single", index_name="single", index_type="FLAT", metric_type="L2")
    client.create_index("docs_1", indexes, sync=False)
    with pytest.raises(CollectionError, match="metric is L2, not COSINE"):
        place.store.demand_fit("docs_1", place.layout(snapshot))


def test_what_is_not_ours_is_left_alone(place: Place, client: MilvusClient, corpus: Corpus) -> None:
    client.create_collection("docs_1", dimension=4)
    client.create_alias("docs_1", "docs_2")
    for name in ("docs_1", "docs_2"):
        with pytest.raises(CollectionError, match=f"'{name}' is something that Nightjar has not"):
            place.store.owner(name)
    corpus.add(names(5))
    # both names are taken: another is chosen
    assert place.fill(corpus.commit()).collection == "docs_3"
    with pytest.raises(CollectionError, match="'docs_1' is a collection"):
        place.store.lead("docs_1", "docs_3")


def test_an_alias_of_one_of_ours_is_no_collection(place: Place, corpus: Corpus) -> None:
    corpus.add(names(5))
    place.fill(corpus.commit())
    with pytest.raises(CollectionError, match="'docs' is something that Nightjar has not made"):
        place.store.owner("docs")


def test_a_column_that_milvus_cannot_name_is_told_before_anything_is_made(place: Place) -> None:
    layout = Layout(
        single=VectorType(size=8, dtype="float32"),
        multi=None,
        payload=(("the title", pa.string()),),
        indexed=(),
        approximate=False,
    )
    with pytest.raises(CollectionError, match="'the title' is no name that Milvus takes"):
        place.store.create("docs_1", layout, "owner")
    assert place.store.owner("docs_1") is None


def test_connections_of_one_process_share_a_file(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    with connected(place.spec) as store:
        assert store.count("docs_1") == 20
    # the one that was closed has not taken the file away
    _demand_holds(place, snapshot)


def test_a_file_that_another_process_holds_is_told(place: Place) -> None:
    program = (
        "import sys\n"
        "from pipeline.index.stores.milvus import Milvus\n"
        "from pipeline.errors import StoreFailed\n"
        "try:\n"
        "    Milvus(sys.argv[1], None)\n"
        "except StoreFailed as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, place.spec.url]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "one process at a time holds a file of Milvus Lite" in told


@pytest.mark.parametrize("url", ["./milvus", "milvus.sqlite"])
def test_a_path_that_is_no_file_of_milvus_lite_is_told(url: str) -> None:
    with (
        pytest.raises(SpecError, match=r"neither http://host:port nor a path that ends in \.db"),
        _placed(url),
    ):
        pass


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with (
        pytest.raises(StoreFailed, match=r"store\.url: 'http://127\.0\.0\.1:1' cannot be used"),
        _placed("http://127.0.0.1:1"),
    ):
        pass


def test_a_server_is_filled_and_brought_up_version_by_version(
    process: Process, corpus: Corpus
) -> None:
    with _placed(process.url, "versions") as place:
        # whoever serves it, Milvus Lite has one writer at a time
        assert place.store.bounds.at_once == 1
        first = corpus.add(names(60))
        place.fill(corpus.commit())
        corpus.bury(first, 1, 2)
        corpus.add(["doc-1", "new"], salt=1)
        snapshot = corpus.commit()
        report = place.fill(snapshot)
        assert (report.how, report.written, report.deleted) == ("difference", 2, 1)
        _demand_holds(place, snapshot)
        assert place.fill(snapshot, beside=True).collection != report.collection
        _demand_holds(place, snapshot)


def test_a_server_that_is_killed_and_started_again_keeps_what_it_said_it_has(
    corpus: Corpus, tmp_path: Path
) -> None:
    server = Process(tmp_path / "data")
    try:
        with _placed(server.url, feed={"batch_points": 10, "at_once": 1}) as place:
            first = corpus.add(names(60))
            place.fill(corpus.commit())
            corpus.bury(first, *range(30))
            corpus.add(names(60, "more"))
            snapshot = corpus.commit()
            starter = threading.Timer(0.5, server.start)
            writes: list[str] = []

            def hand(how: str, _: pa.Table, write: Callable[[], None]) -> None:
                writes.append(how)
                if len(writes) == 3:
                    server.kill()
                    starter.start()
                write()

            report = place.fill(snapshot, Faulty(place.store, hand))
            starter.join()
            assert (report.written, report.points) == (60, 90)
            assert len(writes) > 6
            _demand_holds(place, snapshot)
    finally:
        server.kill()


@pytest.fixture
def proxy(process: Process) -> Iterator[Proxy]:
    found = Proxy(process.port)
    yield found
    found.close()


def test_a_connection_that_is_cut_in_a_request_is_made_anew(proxy: Proxy, tmp_path: Path) -> None:
    corpus = Corpus(root=tmp_path / "large", dim=2048)
    corpus.add(names(120))
    snapshot = corpus.commit()
    tries: list[str] = []

    def hand(how: str, _: pa.Table, write: Callable[[], None]) -> None:
        tries.append(how)
        if len(tries) == 1:
            proxy.left = 300_000
        write()

    with _placed(proxy.url, "cut") as place:
        place.fill(snapshot, Faulty(place.store, hand))
        assert (proxy.left, tries) == (None, ["load", "load"])
        _demand_holds(place, snapshot)


def test_a_server_that_says_nothing_is_given_up_and_asked_again(
    proxy: Proxy, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.stores.milvus_wire.SECONDS", 0.5)
    corpus.add(names(20))
    snapshot = corpus.commit()
    said: list[str] = []

    def hand(_: str, __: pa.Table, write: Callable[[], None]) -> None:
        if not said:
            proxy.passes.clear()
        begun = time.monotonic()
        try:
            write()
        except Busy as busy:
            assert time.monotonic() - begun < 5
            said.append(str(busy))
            proxy.passes.set()
            raise

    with _placed(proxy.url, "silent") as place:
        place.fill(snapshot, Faulty(place.store, hand))
        assert said[0].startswith("DEADLINE_EXCEEDED")
        _demand_holds(place, snapshot)


def _answer(**status: Any) -> milvus_pb2.MutationResult:
    return milvus_pb2.MutationResult(status=common_pb2.Status(**status))


@pytest.mark.parametrize(
    "status",
    [
        {"code": 8, "error_code": common_pb2.RateLimit, "reason": "rate limit exceeded"},
        {"code": 9, "error_code": common_pb2.ForceDeny, "reason": "memory quota exceeded"},
        {"code": 1, "retriable": True, "reason": "service not ready"},
    ],
)
def test_a_server_that_limits_requests_is_asked_again_by_the_feed_alone(
    corpus: Corpus, tmp_path: Path, status: dict[str, Any]
) -> None:
    asked: list[int] = []

    def hand(request: Any, _: grpc.ServicerContext, write: Callable[[], Any]) -> Any:
        asked.append(request.num_rows)
        return _answer(**status) if len(asked) < 3 else write()

    tries: list[str] = []

    def counted(how: str, _: pa.Table, write: Callable[[], None]) -> None:
        tries.append(how)
        write()

    corpus.add(names(20))
    snapshot = corpus.commit()
    with _by_hand(tmp_path, hand) as place:
        place.fill(snapshot, Faulty(place.store, counted))
        # the client has not asked again on its own
        assert len(tries) == len(asked) == 3
        _demand_holds(place, snapshot)


def test_seconds_that_a_server_asks_to_wait_for_are_told(corpus: Corpus, tmp_path: Path) -> None:
    def hand(_: Any, context: grpc.ServicerContext, __: Callable[[], Any]) -> Any:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "1500"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")

    corpus.add(names(5))
    snapshot = corpus.commit()
    with _by_hand(tmp_path, hand) as place:
        place.store.create("docs_1", place.layout(snapshot), "owner")
        with pytest.raises(Busy, match="RESOURCE_EXHAUSTED: slow down") as told:
            place.store.load("docs_1", _table(place, snapshot))
        assert told.value.retry_after == 1.5


def test_an_answer_that_was_lost_leaves_no_point_twice(corpus: Corpus, tmp_path: Path) -> None:
    asked: list[int] = []

    def hand(request: Any, context: grpc.ServicerContext, write: Callable[[], Any]) -> Any:
        done = write()
        asked.append(request.num_rows)
        if len(asked) == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return done

    corpus.add(names(30))
    snapshot = corpus.commit()
    with _by_hand(tmp_path, hand, feed={"batch_points": 10}) as place:
        assert place.fill(snapshot).points == 30
        assert asked == [10] * 4
        _demand_holds(place, snapshot)


@pytest.mark.parametrize(
    "status",
    [
        {"code": 1100, "reason": "no such point"},
        {"code": 65_535, "extra_info": {"is_input_error": "true"}, "reason": "no such point"},
    ],
)
def test_a_point_that_a_server_refuses_is_named_and_the_others_are_written(
    corpus: Corpus, tmp_path: Path, status: dict[str, Any]
) -> None:
    def hand(request: Any, _: grpc.ServicerContext, write: Callable[[], Any]) -> Any:
        columns = {column.field_name: column for column in request.fields_data}
        if "doc-77" in columns["id"].scalars.string_data.data:
            return _answer(**status)
        return write()

    corpus.add(names(150))
    with _by_hand(tmp_path, hand) as place:
        report = place.fill(corpus.commit())
        assert [(one.id, one.message) for one in report.rejected] == [("doc-77", "no such point")]
        assert report.points == 149


def test_no_request_names_a_point_twice(corpus: Corpus, tmp_path: Path) -> None:
    keys: list[list[str]] = []

    def hand(request: Any, _: grpc.ServicerContext, write: Callable[[], Any]) -> Any:
        (column,) = (one for one in request.fields_data if one.field_name == POINT)
        assert column.type == DataType.VARCHAR
        keys.append(list(column.scalars.string_data.data))
        return write()

    corpus.add(["a", "b", "c", "b"])
    with _by_hand(tmp_path, hand) as place:
        report = place.fill(corpus.commit())
        assert (report.points, report.repeated) == (3, 1)
        # a server that is no Milvus Lite refuses such a request
        assert all(len(some) == len(set(some)) for some in keys)


def test_requests_carry_the_token_and_the_database(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILVUS_TEST_TOKEN", "root:secret")
    seen: list[tuple[str, Any]] = []

    def hand(request: Any, context: grpc.ServicerContext, write: Callable[[], Any]) -> Any:
        seen.append((request.db_name, dict(context.invocation_metadata()).get("authorization")))
        return write()

    corpus.add(names(5))
    snapshot = corpus.commit()
    with by_hand(tmp_path / "by_hand", hand) as url:
        client = MilvusClient(url, dedicated=True)
        client.create_database("mine")
        client.close()
        with _placed(f"{url}/mine", secret="env:MILVUS_TEST_TOKEN") as place:
            place.fill(snapshot)
            _demand_holds(place, snapshot)
        with _placed(url) as place:
            assert place.store.live("docs") is None
    assert set(seen) == {("mine", "cm9vdDpzZWNyZXQ=")}
