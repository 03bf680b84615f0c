"""What everything rests on, in every store: one winner per create, whole objects, true listings."""

import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import SourceChanged
from pipeline.folder import PROBE, Folder, settle
from pipeline.storage import (
    StoredObject,
    demand_unchanged,
    list_objects,
    open_object,
    read_object,
)

WRITERS = 16
_PAGE = 1000
_STRANGE = (
    "a b",
    "a+b",
    "100%",
    "a%20b",
    "a&b=c",
    "ключ",
    "e\u0301 \u00e9",
    "🦉",
    "it's",
    "~",
    "a..b",
)


@pytest.fixture
def restless(root: str) -> Iterator[None]:
    """Threads that change after a few instructions, so that a gap of a few is met."""
    interval = sys.getswitchinterval()
    if "://" not in root:
        # the fake S3 lives in this process, and has such gaps of its own
        sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def _race(root: str, do: Callable[[Folder, str, int], bytes | None]) -> dict[str, list[bytes]]:
    """What each of many writers that meet at each of some names got there."""
    names = [f"log/{number}.json" for number in range(5 if "://" in root else 20)]
    start = threading.Barrier(WRITERS)

    def write(number: int) -> list[bytes | None]:
        folder, got = Folder(root), []
        for name in names:
            start.wait()
            got.append(do(folder, name, number))
        return got

    with ThreadPoolExecutor(WRITERS) as pool:
        by_writer = list(pool.map(write, range(WRITERS)))
    return {
        name: [got[i] for got in by_writer if got[i] is not None] for i, name in enumerate(names)
    }


def _bytes_of(number: int) -> bytes:
    return b"%d" % number * 1000


def _listed(uri: str) -> StoredObject:
    (found,) = list_objects(uri)
    return found


def _names(uri: str, *suffixes: str) -> list[str]:
    """What is listed, as paths below the folder `store`."""
    return [o.uri.partition("/store/")[2] for o in list_objects(uri, suffixes)]


@pytest.mark.usefixtures("restless")
def test_of_many_writers_that_create_one_wins_and_its_bytes_stay(root: str) -> None:
    def create(folder: Folder, name: str, number: int) -> bytes | None:
        try:
            folder.create(name, _bytes_of(number))
        except OSError:
            return None
        return _bytes_of(number)

    for name, won in _race(root, create).items():
        assert len(won) == 1
        assert Folder(root).get(name) == won[0]


def test_a_listing_tells_the_size_and_the_stores_own_time_of_each_object(root: str) -> None:
    folder = Folder(root)
    folder.put("data/first", b"1")
    folder.put("data/second", b"22")
    folder.create("data/third", b"333")
    found = folder.listed("data")
    assert {name: each.size for name, each in found.items()} == {
        "first": 1,
        "second": 2,
        "third": 3,
    }
    times = [found[name].modified for name in ("first", "second", "third")]
    assert times == sorted(times)
    # each store keeps it elsewhere; one that is not found would be 1970
    assert all(time > 1.7e9 for time in times)


@pytest.mark.usefixtures("restless")
def test_of_many_writers_that_settle_all_are_told_the_bytes_of_the_first(root: str) -> None:
    for name, told in _race(root, lambda f, name, n: settle(f, name, _bytes_of(n))).items():
        assert len(told) == WRITERS
        assert set(told) == {Folder(root).get(name)}


def test_create_refuses_what_put_made_and_leaves_it(root: str) -> None:
    folder = Folder(root)
    folder.put("a", b"first")
    with pytest.raises(OSError):
        folder.create("a", b"second")
    assert folder.get("a") == b"first"
    assert settle(folder, "a", b"third") == b"first"


def test_put_replaces_and_get_of_nothing_says_so(root: str) -> None:
    folder = Folder(root)
    with pytest.raises(FileNotFoundError):
        folder.get("deep/er/a")
    folder.put("deep/er/a", b"one")
    folder.put("deep/er/a", b"two, longer")
    assert folder.get("deep/er/a") == b"two, longer"
    folder.put("deep/er/a", b"")
    assert folder.get("deep/er/a") == b""


@pytest.mark.parametrize("mark", [b"0\r\n", b"--boundary--", b"--==0==", b"--==0==--"])
def test_no_bytes_are_mistaken_for_the_wire_s_own(root: str, mark: bytes) -> None:
    data = b"before\r\n" + mark + b"\r\n" + bytes(range(256)) * 64
    folder = Folder(root)
    folder.put("a", data)
    folder.create("b", data)
    assert folder.get("a") == data
    assert folder.get("b") == data


def test_what_is_deleted_is_gone_and_may_have_been_gone(root: str) -> None:
    folder = Folder(root)
    folder.delete("d/a")
    folder.put("d/a", b"one")
    folder.put("d/b", b"two")
    folder.delete("d/a")
    folder.delete("d/a")
    assert folder.names("d") == ["b"]
    with pytest.raises(FileNotFoundError):
        folder.get("d/a")


def test_a_store_is_probed_with_one_object_at_most_however_often(root: str) -> None:
    folder = Folder(root)
    for _ in range(3):
        folder.demand_create()
    assert set(folder.names("")) <= {PROBE}


@pytest.mark.fault("store.listing")
def test_more_than_a_page_of_objects_is_listed_whole_and_in_order(root: str) -> None:
    folder = Folder(root)
    names = [f"{number:04}" for number in range(_PAGE + 5)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: folder.put(f"log/{name}", b""), names))
    assert folder.names("log") == names
    assert _names(f"{root}/log") == [f"log/{name}" for name in names]


@pytest.mark.fault("store.listing")
def test_objects_with_strange_names_are_listed_read_and_unchanged(root: str) -> None:
    folder = Folder(root)
    for name in _STRANGE:
        folder.put(f"odd/{name}", name.encode())
    assert folder.names("odd") == sorted(_STRANGE)
    found = list_objects(f"{root}/odd")
    assert [read_object(o.uri).decode() for o in found] == sorted(_STRANGE)
    for stored in found:
        demand_unchanged(stored)
    for name in _STRANGE:
        folder.delete(f"odd/{name}")
    assert folder.names("odd") == []


def test_names_are_those_directly_below_sorted_without_hidden_ones(root: str) -> None:
    folder = Folder(root)
    for name in ("log/2", "log/1", "log/.tmp", "log/10", "log/deep/4", "log2/5", "other/3"):
        folder.put(name, b"x" * 3)
    assert folder.names("log") == ["1", "10", "2"]
    assert folder.sizes("log") == {"1": 3, "10": 3, "2": 3}
    assert folder.folders("") == ["log", "log2", "other"]
    assert folder.folders("log") == ["deep"]
    assert folder.names("nothing") == []


def test_a_directory_lists_all_below_it_sorted_without_hidden_files(root: str) -> None:
    folder = Folder(root)
    for name in ("b.parquet", "a.PARQUET", "sub/c.parquet", "notes.txt", ".hidden.parquet"):
        folder.put(name, b"x")
    folder.put("sub/_SUCCESS", b"x")
    folder.put("_temporary/0/part.parquet", b"x")
    folder.put(".git/x.parquet", b"x")
    assert _names(root, ".parquet") == ["a.PARQUET", "b.parquet", "sub/c.parquet"]
    assert _names(f"{root}/", ".parquet") == ["a.PARQUET", "b.parquet", "sub/c.parquet"]
    assert _names(root) == ["a.PARQUET", "b.parquet", "notes.txt", "sub/c.parquet"]


def test_a_glob_lists_what_it_matches_whatever_the_suffix(root: str) -> None:
    folder = Folder(root)
    for name in ("x/1.parquet", "x/2.parquet", "y/1.parquet", "x/.1.parquet", "x/z/3.parquet"):
        folder.put(name, b"x")
    assert _names(f"{root}/x/*.parquet") == ["x/1.parquet", "x/2.parquet"]
    assert _names(f"{root}/*/1.parquet") == ["x/1.parquet", "y/1.parquet"]
    assert _names(f"{root}/x/[1]*", ".tar") == ["x/1.parquet"]
    everything = ["x/1.parquet", "x/2.parquet", "x/z/3.parquet", "y/1.parquet"]
    assert _names(f"{root}/**/*.parquet") == everything


def test_one_object_is_listed_whatever_its_suffix_and_nothing_where_there_is_none(
    root: str,
) -> None:
    Folder(root).put("data.bin", b"12345")
    (found,) = list_objects(f"{root}/data.bin", (".parquet",))
    assert found.size == 5
    assert found == _listed(f"{root}/data.bin")
    assert list_objects(f"{root}/nowhere", (".parquet",)) == []
    assert list_objects(f"{root}/*.nothing") == []


def test_what_is_named_itself_is_listed_though_its_name_is_hidden(root: str) -> None:
    folder = Folder(root)
    folder.put(".cache/corpus/a.parquet", b"x")
    folder.put(".cache/corpus/.b.parquet", b"x")
    assert _names(f"{root}/.cache/corpus/.b.parquet") == [".cache/corpus/.b.parquet"]
    for below in (".cache/corpus", ".cache/corpus/*.parquet"):
        assert _names(f"{root}/{below}") == [".cache/corpus/a.parquet"]


def test_the_etag_changes_with_the_content_and_not_without(root: str) -> None:
    folder = Folder(root)
    folder.put("a", b"one")
    before = _listed(f"{root}/a")
    assert _listed(f"{root}/a") == before
    assert list_objects(root) == [before]
    folder.put("a", b"two")
    assert _listed(f"{root}/a").etag != before.etag


def test_an_object_that_was_replaced_or_removed_since_it_was_listed_is_refused(root: str) -> None:
    folder = Folder(root)
    folder.put("a", b"one")
    listed = _listed(f"{root}/a")
    demand_unchanged(listed)
    folder.put("a", b"two")
    with pytest.raises(SourceChanged, match="/store/a was changed while the run read it"):
        demand_unchanged(listed)
    folder.delete("a")
    with pytest.raises(SourceChanged, match="/store/a was removed while the run read it"):
        demand_unchanged(listed)


# aiohttp would have what gcsfs sends in pieces
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
def test_a_range_of_an_object_is_read_and_an_open_one_can_seek(root: str) -> None:
    data = uuid.uuid4().bytes * (1 << 16)
    Folder(root).put("a", data)
    assert read_object(f"{root}/a") == data
    for start, stop in ((10, 20), (0, 1), (len(data) - 1, len(data)), (1 << 10, 1 << 19)):
        assert read_object(f"{root}/a", start, stop) == data[start:stop]
    with open_object(_listed(f"{root}/a")) as stream:
        stream.seek(len(data) - 10)
        assert stream.read() == data[-10:]
        stream.seek(5)
        assert stream.read(7) == data[5:12]
