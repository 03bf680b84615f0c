"""Files of the catalogue, through the command."""

import base64
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.errors import SourceError
from pipeline.shards import parquet
from pipeline.shards.footer import open_parquet
from pipeline.storage import open_object
from tests.jobs import embed, write_spec, write_tar
from tests.shards import read_all

Captured = pytest.CaptureFixture[str]


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


_TABLE = pa.table({"id": ["a", "b"], "text": ["one", "two"]})
_WHOLE = _parquet(_TABLE)


def _source(path: Path) -> dict[str, Any]:
    return {
        "uri": str(path),
        "format": "parquet",
        "id": "id",
        "text": "text",
        "task": "code.query",
    }


def _refused(tmp_path: Path, checkpoint: Path, source: dict[str, Any], capsys: Captured) -> str:
    """The one sentence of a run that is refused."""
    assert embed(write_spec(tmp_path, checkpoint, source)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    assert not (tmp_path / "out").exists()
    return told


@pytest.mark.fault("file.corrupt")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        _WHOLE[:-9],
        _WHOLE[: len(_WHOLE) // 2],
        _WHOLE[:-8] + b"\xff\xff\xff\x7fPAR1",
        _WHOLE[:-60] + bytes(52) + _WHOLE[-8:],
        _WHOLE[:-4] + b"PARE",
        b"<html>404</html>" * 20,
        bytes(4096),
    ],
    ids=[
        *("empty", "a mark", "two marks", "cut", "half", "a long footer", "a damaged footer"),
        *("encrypted", "HTML", "zeros"),
    ],
)
def test_a_parquet_file_that_is_none_is_refused_beside_a_whole_one(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, content: bytes
) -> None:
    (tmp_path / "1.parquet").write_bytes(_WHOLE)
    (tmp_path / "2.parquet").write_bytes(content)
    told = _refused(tmp_path, tiny_checkpoint, _source(tmp_path), capsys)
    assert f"{tmp_path / '2.parquet'} cannot be read as Parquet: " in told


@pytest.mark.fault("file.corrupt")
@pytest.mark.parametrize("kept", [0, 100, 700], ids=["empty", "in a header", "between samples"])
def test_a_tar_that_is_cut_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, kept: int
) -> None:
    source = write_tar(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:kept])
    told = _refused(tmp_path, tiny_checkpoint, source, capsys)
    assert f"{tmp_path / 'a.tar'} cannot be read as an uncompressed tar: " in told


@pytest.mark.fault("file.skipped")
def test_shards_that_cannot_be_read_are_passed_over_and_listed_when_the_spec_says_so(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "1.parquet").write_bytes(_WHOLE)
    (docs / "2.parquet").write_bytes(_WHOLE[:-9])
    tar = write_tar(docs / "a.tar")
    (docs / "b.tar").write_bytes((docs / "a.tar").read_bytes()[:700])
    sources = [
        _source(docs) | {"on_bad_file": "skip"},
        tar | {"uri": f"{docs}/*.tar", "on_bad_file": "skip", "keep": []},
    ]
    spec = write_spec(tmp_path, tiny_checkpoint, sources)
    for _ in range(2):
        assert embed(spec) == 0
        told = capsys.readouterr().out
        assert "; 2 shards passed over, with rows that this version has not\n" in told
        assert f"passed over: {docs / '2.parquet'} cannot be read as Parquet: " in told
        assert f"passed over: {docs / 'b.tar'} cannot be read as an uncompressed tar: " in told
    assert "up to date" in told
    # what a spec got wrong is no damage of a file
    assert embed(spec, "--set", "source.0.text=boddy") == 2
    assert "has no column 'boddy'" in capsys.readouterr().err


@pytest.mark.fault("file.no_rows")
def test_shards_without_rows_are_passed_over(tmp_path: Path, tiny_checkpoint: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, table in {"1": _TABLE.slice(0, 0), "2": _TABLE, "3": _TABLE.slice(2)}.items():
        pq.write_table(table, docs / f"{name}.parquet")
    (docs / "0.jsonl").write_bytes(b"\n \n")
    (docs / "1.jsonl").write_bytes(b'{"id": "c", "text": "three"}\n')
    sources = [_source(docs), _source(docs) | {"format": "jsonl"}]
    assert embed(write_spec(tmp_path, tiny_checkpoint, sources)) == 0
    assert open_dataset(str(tmp_path / "out")).to_table()["id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.fault("file.nothing")
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "webdataset"])
def test_a_source_without_rows_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, kind: str
) -> None:
    source = _source(tmp_path / "docs") | {"format": kind}
    if kind == "webdataset":
        del source["id"], source["text"]
    (tmp_path / "docs").mkdir()
    assert "no object matches" in _refused(tmp_path, tiny_checkpoint, source, capsys)
    pq.write_table(_TABLE.slice(2), tmp_path / "docs/a.parquet")
    (tmp_path / "docs/a.jsonl").write_bytes(b"\n")
    tarfile.open(tmp_path / "docs/a.tar", "w").close()
    assert "has no rows; an empty source" in _refused(tmp_path, tiny_checkpoint, source, capsys)


@pytest.mark.fault("file.bit_flip")
def test_a_flipped_bit_in_a_page_with_a_checksum_fails_the_run_by_name(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    marker = b"a text that is easily found"
    table = pa.table({"id": [1, 2], "text": ["first", marker.decode()]})
    settings = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    content = bytearray(_parquet(table, write_statistics=False, **settings))
    assert content.count(marker) == 1
    content[content.index(marker)] ^= 1
    (tmp_path / "a.parquet").write_bytes(content)
    assert embed(write_spec(tmp_path, tiny_checkpoint, _source(tmp_path / "a.parquet"))) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'a.parquet'} cannot be read: " in told
    assert not list((tmp_path / "out").glob("log/*"))


class _Recorded(io.RawIOBase):
    """A file that tells how much it was asked for at once."""

    def __init__(self, stream: BinaryIO, asked: list[int]) -> None:
        self._stream, self._asked = stream, asked

    def read(self, size: int = -1) -> bytes:
        self._asked.append(size)
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()
        super().close()

    def seek(self, at: int, whence: int = 0) -> int:
        return self._stream.seek(at, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@pytest.mark.fault("file.huge_row_group")
def test_a_huge_row_group_is_read_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = np.random.default_rng(0).integers(97, 123, (20_000, 1000), np.uint8)
    cells = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(1000), len(texts), [None, pa.py_buffer(texts)]
    )
    table = pa.table({"id": range(len(texts)), "text": cells.cast(pa.binary()).cast(pa.string())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=len(texts), compression="none")
    assert pq.read_metadata(tmp_path / "a.parquet").row_group(0).total_byte_size > 15 << 20
    asked: list[int] = []
    monkeypatch.setattr(parquet, "open_object", lambda *a: _Recorded(open_object(*a), asked))
    assert read_all(_source(tmp_path / "a.parquet")).plan.rows == len(texts)
    assert max(asked) <= 2 << 20
    assert min(asked) >= 0, "never the rest of the file"


class _Trap(pa.ExtensionType):  # type: ignore[misc]
    """A type that tells when Arrow makes it."""

    made: list[bytes]

    def __init__(self) -> None:
        super().__init__(pa.binary(), "nightjar.trap")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> "_Trap":
        cls.made.append(serialized)
        return cls()


@pytest.fixture
def trap() -> Iterator[list[bytes]]:
    """What the trap's class was given, while it is registered."""
    _Trap.made = []
    pa.register_extension_type(_Trap())
    yield _Trap.made
    pa.unregister_extension_type("nightjar.trap")


def _with_type(name: str, nested: bool) -> bytes:
    """A file whose column `x`, which nobody maps, is of an extension type."""
    announced = {"ARROW:extension:name": name, "ARROW:extension:metadata": "payload"}
    field = pa.field("inner" if nested else "x", pa.binary(), metadata=announced)
    cells: pa.Array = pa.array([b"1", b"2"])
    if nested:
        field = pa.field("x", pa.struct([field]))
        cells = pa.array([{"inner": b"1"}, {"inner": b"2"}], field.type)
    schema = pa.schema([*_TABLE.schema, field])
    return _parquet(pa.Table.from_arrays([*_TABLE.columns, cells], schema=schema))


@pytest.mark.fault("file.extension_types")
@pytest.mark.parametrize("nested", [False, True], ids=["a column", "in a struct"])
@pytest.mark.parametrize(
    "name",
    ["nightjar.trap", "ray.data.arrow_pickled_object", "ray.data.arrow_tensor", "arrow.uuid"],
)
def test_a_column_of_an_extension_type_is_refused_before_the_type_is_made(
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: Captured,
    trap: list[bytes],
    name: str,
    nested: bool,
) -> None:
    (tmp_path / "a.parquet").write_bytes(_with_type(name, nested))
    told = _refused(tmp_path, tiny_checkpoint, _source(tmp_path / "a.parquet"), capsys)
    column = "x.inner" if nested else "x"
    assert f"a.parquet has a column of an extension type ({column!r}: {name})" in told
    assert trap == []


@pytest.mark.fault("file.extension_types")
def test_whoever_opens_a_file_is_kept_from_such_a_type(trap: list[bytes]) -> None:
    content = _with_type("nightjar.trap", nested=False)
    with pytest.raises(SourceError, match="extension type"), io.BytesIO(content) as stream:
        open_parquet(stream, "a.parquet")
    assert trap == []
    with pa.BufferReader(content) as stream:
        pq.ParquetFile(stream)
    assert trap, "the trap is real"


@pytest.mark.fault("file.extension_types")
# four are as many as a decoder could pass over unnoticed
@pytest.mark.parametrize("damage", [b"*", b"****"])
def test_an_arrow_schema_that_is_damaged_is_no_way_around(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, trap: list[bytes], damage: bytes
) -> None:
    content = _with_type("nightjar.trap", nested=False)
    announced = base64.b64encode(b"\xff\xff\xff\xff")[:4]
    at = content.index(announced, content.index(b"ARROW:schema"))
    (tmp_path / "a.parquet").write_bytes(content[:at] + damage + content[at + len(damage) :])
    told = _refused(tmp_path, tiny_checkpoint, _source(tmp_path / "a.parquet"), capsys)
    assert "the Arrow schema in its footer is damaged" in told
    assert trap == []


def _with_two_schemas(keys: list[bytes], trap_first: bool) -> bytes:
    """A file with two entries in its footer: a schema with an extension type, and a plain one."""
    schemas = [
        pq.read_metadata(io.BytesIO(content)).metadata[b"ARROW:schema"]
        for content in (_with_type("nightjar.trap", nested=False), _WHOLE)
    ]
    names = [b"AAAAA:schema", b"BBBBB:schema"]
    entries = dict(zip(names, schemas if trap_first else schemas[::-1], strict=True))
    table, buffer = pa.table({"id": ["a"], "text": ["one"], "x": [b"1"]}), io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(entries)
    content = buffer.getvalue()
    for name, key in zip(names, keys if trap_first else keys[::-1], strict=True):
        content = content.replace(name, key)
    return content


@pytest.mark.fault("file.extension_types")
@pytest.mark.parametrize("trap_first", [True, False], ids=["trap first", "trap last"])
@pytest.mark.parametrize("other", [b"ARROW-schema", b"ARROW0000000", b"ARROW:schema"])
def test_a_second_schema_in_the_footer_is_no_way_around(
    trap: list[bytes], other: bytes, trap_first: bool
) -> None:
    content = _with_two_schemas([b"ARROW:schema", other], trap_first)
    trap.clear()  # it was made to be written
    twice = other == b"ARROW:schema"
    expected = "has 2 Arrow schemas" if twice else "extension type"
    with pytest.raises(SourceError, match=expected), io.BytesIO(content) as stream:
        open_parquet(stream, "a.parquet")
    assert trap == []
    if trap_first or not twice:
        with pa.BufferReader(content) as stream:
            pq.ParquetFile(stream)
        assert trap, "the trap is real"
