"""Images: folders of them, and columns that hold their bytes or lead to them."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.folder import Folder
from pipeline.shards.references import base_of
from pipeline.stages.plan import plan_work
from pipeline.stages.source import read_units
from tests.shards import assert_each_row_is_read_once, job, read_all


def _folder(uri: object) -> dict[str, Any]:
    return {"uri": str(uri), "format": "images", "task": "code.query"}


def _fill(directory: Path, names: list[str]) -> None:
    """Files whose content is their name."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_nested_folders_give_relative_ids_in_order(tmp_path: Path) -> None:
    names = ["b.png", "a/2.JPG", "a/1.webp", "a/deep/x.y.tiff", "Ж/я é.gif"]
    _fill(tmp_path, names)
    found = read_all(_folder(tmp_path), 2)
    assert found.column("id") == sorted(names)
    assert found.column("image") == [name.encode() for name in sorted(names)]
    assert found.column("locator") == [f"{tmp_path}/{name}" for name in sorted(names)]
    assert found.plan.id_type == pa.string()


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    _fill(
        tmp_path,
        [
            "a.png",
            ".b.png",
            "_c.png",
            "d.txt",
            "e",
            "sub/.f.png",
            "sub/Thumbs.db",
            ".git/h.png",
            "_temporary/0/i.png",
        ],
    )
    assert read_all(_folder(tmp_path)).column("id") == ["_c.png", "a.png"]


def test_ids_are_relative_to_the_directory_before_the_glob(tmp_path: Path) -> None:
    _fill(tmp_path, ["x/1.png", "y/1.png", "z.png"])
    assert read_all(_folder(tmp_path / "*/1.png")).column("id") == ["x/1.png", "y/1.png"]
    assert read_all(_folder(tmp_path / "x/1.png")).column("id") == ["1.png"]
    both = _folder("unused") | {"uri": [str(tmp_path / "x"), str(tmp_path / "y")]}
    assert read_all(both).column("locator") == [f"{tmp_path}/x/1.png", f"{tmp_path}/y/1.png"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_overlapping_roots_the_longest_is_the_base_of_ids_and_of_paths(
    tmp_path: Path, order: int
) -> None:
    _fill(tmp_path, ["x/deep/1.png", "x/2.png", "x/deeper/3.png"])
    columns = {"id": ["a"], "image": ["1.png"]}
    pq.write_table(pa.table(columns), tmp_path / "x/deep/a.parquet")
    roots = {"uri": [str(tmp_path / "x"), str(tmp_path / "x/deep")][::order]}
    ids = set(read_all(_folder("unused") | roots).column("id"))
    assert ids == {"1.png", "2.png", "deeper/3.png"}
    rows = {"format": "parquet", "id": "id", "image": "image", "task": "code.query"}
    assert read_all(rows | roots).column("image") == [b"x/deep/1.png"]


def test_a_directory_is_no_base_of_one_whose_name_begins_with_its_own(tmp_path: Path) -> None:
    _fill(tmp_path, ["a/1.png", "ab/1.png"])
    # the first begins at the folder above both
    roots = {"uri": [str(tmp_path / "a*/1.png"), str(tmp_path / "a")]}
    (source,) = job(_folder("unused") | roots).sources
    assert base_of(source, str(tmp_path / "ab/1.png")) == f"file://{tmp_path}"
    assert set(read_all(_folder("unused") | roots).column("id")) == {"1.png", "ab/1.png"}


@given(count=st.integers(1, 20), unit_rows=st.integers(1, 7))
def test_units_cover_each_image_once(
    tmp_path_factory: pytest.TempPathFactory, count: int, unit_rows: int
) -> None:
    directory = tmp_path_factory.mktemp("images")
    _fill(directory, [f"{number:03}.png" for number in range(count)])
    found = read_all(_folder(directory), unit_rows)
    assert_each_row_is_read_once(found, ["code.query"] * count, unit_rows)


@pytest.mark.fault("file.gone")
def test_an_image_that_is_gone_when_it_is_read_is_a_row_with_a_reason(tmp_path: Path) -> None:
    _fill(tmp_path, ["1.png", "2.png", "3.png"])
    spec = job(_folder(tmp_path))
    plan = plan_work(spec, 602112)
    (tmp_path / "2.png").unlink()
    ((_, rows),) = read_units(spec.sources[0], plan.units, plan.id_type, [])
    assert rows["reason"].to_pylist() == [None, "image_not_found", None]
    assert rows["image"].to_pylist() == [b"1.png", None, b"3.png"]


@pytest.mark.fault("file.nothing")
def test_a_folder_without_images_is_refused_with_what_counts_as_one(tmp_path: Path) -> None:
    _fill(tmp_path, ["a.txt"])
    with pytest.raises(SourceError, match=r"no object matches .* searched for \.jpg, \.jpeg"):
        plan_work(job(_folder(tmp_path)), 602112)


def test_a_file_name_that_is_not_utf8_does_not_end_the_run(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")).write_bytes(b"x")
    _fill(tmp_path, ["b.png"])
    assert read_all(_folder(tmp_path)).plan.rows == 2


def _column(
    directory: Path, images: pa.Array, uri: object = None, **changes: object
) -> list[dict[str, Any]]:
    """The rows of a shard with that image column."""
    table = pa.table({"id": range(len(images)), "image": images})
    pq.write_table(table, directory / "a.parquet")
    source = {"uri": str(uri or directory / "*.parquet"), "format": "parquet", "id": "id"}
    return read_all(source | {"image": "image", "task": "code.query"} | changes).rows


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_a_column_of_bytes_is_taken_as_it_is(tmp_path: Path, kind: pa.DataType) -> None:
    rows = _column(tmp_path, pa.array([b"x", None, b""], kind))
    assert [row["image"] for row in rows] == [b"x", None, b""]
    assert [row["reason"] for row in rows] == [None, None, None]


def test_a_struct_gives_its_bytes_or_else_what_its_path_leads_to(tmp_path: Path) -> None:
    _fill(tmp_path, ["a.png", "sub/b.png"])
    cells = [
        {"bytes": b"inline", "path": "a.png"},
        {"bytes": None, "path": "sub/b.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": None, "path": "missing.png"},
    ]
    rows = _column(
        tmp_path, pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    )
    assert [row["image"] for row in rows] == [b"inline", b"sub/b.png", None, None, None]
    assert [row["reason"] for row in rows] == [None, None, None, None, "image_not_found"]


def test_a_path_is_followed_below_the_source(tmp_path: Path) -> None:
    _fill(tmp_path, ["a.png", "sub/ж é.png"])
    os.symlink("a.png", tmp_path / "link.png")
    rows = _column(tmp_path, pa.array(["a.png", "sub/ж é.png", "./sub/../a.png", "link.png"]))
    assert [row["image"] for row in rows] == [b"a.png", "sub/ж é.png".encode(), None, b"a.png"]
    assert rows[2]["reason"] == "unsafe_path"


UNSAFE = [
    "../secret.png",
    "sub/../../secret.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "s3://bucket/key",
    "http://169.254.169.254/latest",
    "%2e%2e/secret.png",
    "..\\secret.png",
    "",
    "a\0.png",
    "out/secret.png",
    "out.png",
]


@pytest.mark.parametrize("path", UNSAFE)
@pytest.mark.fault("security.path")
def test_a_path_that_leads_elsewhere_is_a_row_with_a_reason(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    source = tmp_path / "source"
    _fill(source, ["a.png"])
    os.symlink(tmp_path, source / "out")
    os.symlink(tmp_path / "secret.png", source / "out.png")
    rows = _column(source, pa.array(["a.png", path, "a.png"]))
    assert [row["reason"] for row in rows] == [None, "unsafe_path", None]
    assert [row["image"] for row in rows] == [b"a.png", None, b"a.png"]


def test_a_path_to_nothing_or_to_a_folder_is_a_row_with_a_reason(tmp_path: Path) -> None:
    _fill(tmp_path, ["sub/a.png"])
    rows = _column(tmp_path, pa.array(["no.png", "sub", ".", "sub/a.png"]))
    assert [row["reason"] for row in rows] == ["image_not_found"] * 3 + [None]
    assert {row["stage"] for row in rows} == {"source", None}


@pytest.mark.parametrize("path", ["a.png/b.png", "x" * 5000, "loop", "loop/a.png"])
def test_a_path_the_system_refuses_is_a_row_with_a_reason(tmp_path: Path, path: str) -> None:
    _fill(tmp_path, ["a.png"])
    os.symlink("loop", tmp_path / "loop")
    rows = _column(tmp_path, pa.array(["a.png", path]))
    assert rows[0]["image"] == b"a.png"
    assert rows[1]["reason"] in ("image_not_found", "unsafe_path")


def test_a_path_that_is_not_utf8_is_a_row_with_a_reason(tmp_path: Path) -> None:
    rows = _column(tmp_path, pa.array([b"\xff.png"], pa.binary()).view(pa.string()))
    assert rows[0]["reason"] is not None


def test_a_path_is_relative_to_the_uri_that_its_shard_came_from(tmp_path: Path) -> None:
    for name in ("x", "y"):
        _fill(tmp_path / name, ["a.png"])
        table = pa.table({"id": [name], "image": [f"{'a'}.png"]})
        pq.write_table(table, tmp_path / name / "a.parquet")
        (tmp_path / name / "a.png").write_text(name)
    uris = [str(tmp_path / name / "*.parquet") for name in ("x", "y")]
    source = {"uri": uris, "format": "parquet", "id": "id", "image": "image"}
    found = read_all(source | {"task": "code.query"})
    assert [row["image"] for row in found.rows] == [b"x", b"y"]


@pytest.mark.fault("security.path")
def test_jsonl_paths_are_held_below_the_source_too(tmp_path: Path) -> None:
    _fill(tmp_path, ["img/a.png"])
    lines = ['{"id": 1, "image": "img/a.png"}', '{"id": 2, "image": "../a.png"}', '{"id": 3}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = {"uri": str(tmp_path / "a.jsonl"), "format": "jsonl", "id": "id", "image": "image"}
    rows = read_all(source | {"task": "code.query"}).rows
    assert [row["image"] for row in rows] == [b"img/a.png", None, None]
    assert [row["reason"] for row in rows] == [None, "unsafe_path", None]


@pytest.mark.s3
def test_images_on_s3_are_found_by_folder_and_by_path(bucket: str) -> None:
    folder = Folder(f"{bucket}/pages")
    for name in ("b.png", "sub/a.png", ".hidden.png"):
        folder.put(name, name.encode())
    found = read_all(_folder(f"{bucket}/pages"))
    assert found.column("id") == ["b.png", "sub/a.png"]
    assert found.column("image") == [b"b.png", b"sub/a.png"]
    lines = b'{"id": 1, "image": "sub/a.png"}\n{"id": 2, "image": "sub/no.png"}\n'
    folder.put("a.jsonl", lines)
    source = {"uri": f"{bucket}/pages/*.jsonl", "format": "jsonl", "id": "id", "image": "image"}
    rows = read_all(source | {"task": "code.query"}).rows
    assert [(row["image"], row["reason"]) for row in rows] == [
        (b"sub/a.png", None),
        (None, "image_not_found"),
    ]
