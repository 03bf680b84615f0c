"""LanceDB: what only it has."""

import ctypes
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lancedb
import psutil
import pyarrow as pa
import pytest

from pipeline.errors import CollectionError, SpecError, StoreFailed
from pipeline.index.connect import connected
from pipeline.index.layout import POINT, SINGLE
from pipeline.index.rows import Rows
from pipeline.index.spec import VectorStoreSpec
from pipeline.storage import use_stores
from pipeline.stores import StoreSpec
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names

_PAGE = 16 << 20


@pytest.fixture
def kind() -> str:
    return "lancedb"


def test_writers_of_the_same_new_points_leave_one_of_each(place: Place, corpus: Corpus) -> None:
    path = corpus.add(names(50))
    snapshot = corpus.commit()
    layout = place.layout(snapshot)
    place.store.create("docs_1", layout, snapshot.dataset)
    part = next(part for part in snapshot.parts if part.file.path == path)
    table = snapshot.points([Rows(part=part)], layout, 1, None).table
    with ExitStack() as held:
        # as other processes do it: one connection merges one table after the other
        stores = [held.enter_context(connected(place.spec)) for _ in range(6)]
        threads = [threading.Thread(target=one.upsert, args=("docs_1", table)) for one in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    # without a primary key that LanceDB compares each of them leaves a copy
    assert place.store.count("docs_1") == 50


def test_a_table_that_is_not_ours_is_left_alone(place: Place) -> None:
    lancedb.connect(place.spec.url).create_table("docs_1", [{"x": 1}])
    with pytest.raises(CollectionError, match="'docs_1' is a table that Nightjar has not made"):
        place.store.owner("docs_1")


def test_it_is_filled_in_an_object_store_that_the_storage_of_a_spec_names(
    bucket: str, s3_endpoint: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("LANCE_TEST_SECRET", "dummy")
    reached = StoreSpec(
        uri=bucket,
        endpoint=s3_endpoint,
        region="us-east-1",
        key="env:LANCE_TEST_SECRET",
        secret="env:LANCE_TEST_SECRET",
    )
    corpus.add(names(30))
    spec = VectorStoreSpec(kind="lancedb", url=f"{bucket}/index", collection="docs")
    use_stores([reached])
    try:
        with connected(spec) as store:
            place = Place(spec, store).with_keys()
            report = place.fill(corpus.commit())
            assert (report.points, store.live("docs")) == (30, "docs_1")
    finally:
        use_stores(())


def test_a_client_that_is_not_installed_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.delitem(sys.modules, "pipeline.index.stores.lancedb", raising=False)
    spec = VectorStoreSpec(kind="lancedb", url=str(tmp_path), collection="docs")
    with (
        pytest.raises(SpecError, match=r"pip install -e '\.\[lancedb\]'"),
        connected(spec),
    ):
        pass


def test_a_place_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec = VectorStoreSpec(kind="lancedb", url=str(tmp_path / "file"), collection="docs")
    with pytest.raises(StoreFailed, match=r"store\.url: '.*file' cannot be used"), connected(spec):
        pass


def _kept(url: str) -> tuple[int, int]:
    """Bytes freed in between that a process has once it has loaded, and once it has closed."""
    points = pa.table({POINT: pa.array([bytes(16)], pa.binary(16)), SINGLE: [[1.0, 0.0]]})
    resident = psutil.Process().memory_info
    spec = VectorStoreSpec(kind="lancedb", url=url, collection="docs")
    with connected(spec) as store:
        lancedb.connect(url).create_table("docs_1", [{POINT: "", SINGLE: [0.0, 0.0]}])
        before = resident().rss
        store.load("docs_1", points)
        pages = [bytearray(b"x" * _PAGE) for _ in range(20)]
        del pages
        loaded = resident().rss - before
    return loaded, resident().rss - before


def test_memory_is_kept_while_points_are_loaded_and_given_back_afterwards(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        loaded, closed = fresh.submit(_kept, str(tmp_path)).result()
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no such settings")
    assert loaded > 15 * _PAGE
    assert closed < 5 * _PAGE
