"""Tar shards: samples by key, read by ranges of bytes, members never extracted."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.stages.plan import plan_work
from tests.shards import ROUTINGS, adapter_of, assert_each_row_is_read_once, job, read_all

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def _source(uri: object, **changes: object) -> dict[str, Any]:
    return {"uri": str(uri), "format": "webdataset", "task": "code.query"} | changes


def _tar(path: Path, members: list[tuple[str, bytes]], kind: str = "pax") -> Path:
    with tarfile.open(path, "w", format=FORMATS[kind]) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _refusal(source: object) -> str:
    with pytest.raises(SourceError) as caught:
        plan_work(job(source), 602112)
    assert "\n" not in str(caught.value)
    return str(caught.value)


_KEYS = st.lists(
    st.builds(
        lambda stem, folder, long: folder + stem + long,
        st.text("abcдж-_0", min_size=1, max_size=6),
        st.sampled_from(["", "x/", "x.y/deep/"]),
        st.sampled_from(["", "n" * 120]),
    ),
    min_size=1,
    max_size=9,
    unique=True,
)


@given(
    keys=_KEYS,
    data=st.data(),
    kind=st.sampled_from(["pax", "gnu"]),
    unit_rows=st.integers(1, 6),
)
def test_units_cover_each_sample_once_with_its_own_members(
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[str],
    data: st.DataObject,
    kind: str,
    unit_rows: int,
) -> None:
    members: list[tuple[str, bytes]] = []
    expected = []
    for key in keys:
        task = data.draw(st.sampled_from(ROUTINGS))
        text, image = data.draw(st.tuples(st.booleans(), st.booleans()))
        body = data.draw(st.binary(max_size=1100))
        members.append((f"{key}.json", json.dumps({"task": task, "n": len(body)}).encode()))
        members += [(f"{key}.txt", body)] * text + [(f"{key}.png", body[::-1])] * image
        given_text, given_image = body if text else None, body[::-1] if image else None
        expected.append((key, task, given_text, given_image, {"n": len(body)}))
    path = _tar(tmp_path_factory.mktemp("shard") / "a.tar", members, kind)
    found = read_all(_source(path, task={"column": "task"}, keep=["n"]), unit_rows)
    tasks = [task for _, task, *_ in expected]
    assert_each_row_is_read_once(found, tasks, unit_rows)
    assert found.plan.rows_by_adapter == Counter(map(adapter_of, tasks))
    columns = [found.column(name) for name in ("id", "task", "text", "image", "kept")]
    assert list(zip(*columns, strict=True)) == expected


def test_a_sample_with_neither_text_nor_image_is_a_row_with_a_reason(tmp_path: Path) -> None:
    members = [("a.txt", b"A"), ("b.cls", b"3"), ("c.jpg", b"C"), ("d.txt", b""), ("d.jpeg", b"")]
    found = read_all(_source(_tar(tmp_path / "a.tar", members)), 2)
    assert found.column("id") == ["a", "b", "c", "d"]
    assert found.column("text") == [b"A", None, None, b""]
    assert found.column("image") == [None, None, b"C", b""]
    assert found.column("reason") == [None, "null_input", None, None]
    assert found.column("message")[1].endswith("its members are cls")
    assert found.column("locator")[1] == f"{tmp_path}/a.tar#sample=b"


@pytest.mark.parametrize("unit_rows", [1, 2, 3])
def test_each_segment_is_a_range_of_bytes_that_is_a_tar_by_itself(
    tmp_path: Path, unit_rows: int
) -> None:
    members = [(f"{n}" * 130 + f".{ext}", b"x" * n * 300) for n in range(6) for ext in ("txt", "c")]
    path = _tar(tmp_path / "a.tar", members)
    content = path.read_bytes()
    spans = [u.segment.span for u in plan_work(job(_source(path), unit_rows), 602112).units]
    assert len(spans) == -(-6 // unit_rows)
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    assert (spans[0][0], spans[-1][1]) == (0, len(content))
    names = []
    for start, stop in spans:
        with tarfile.open(fileobj=io.BytesIO(content[start:stop]), mode="r:") as archive:
            names += archive.getnames()
    assert names == [name for name, _ in members]


def test_keys_are_the_directory_and_the_name_up_to_its_first_dot(tmp_path: Path) -> None:
    members = [("x.1/a.b.txt", b"1"), ("x.1/a.txt", b"2"), ("x.2/a.TXT", b"3"), ("a.txt", b"4")]
    found = read_all(_source(_tar(tmp_path / "a.tar", members)))
    assert found.column("id") == ["x.1/a", "x.2/a", "a"]
    assert found.column("text") == [b"2", b"3", b"4"]
    named = read_all(_source(tmp_path / "a.tar", text="b.txt", image=None))
    assert named.column("text") == [b"1", None, None]


@pytest.mark.fault("security.path")
def test_links_directories_and_hidden_members_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in [
            ("d", tarfile.DIRTYPE),
            ("../../etc/passwd.txt", tarfile.SYMTYPE),
            ("dev.txt", tarfile.CHRTYPE),
            ("hard.txt", tarfile.LNKTYPE),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("d/.hidden.txt", "noextension", "../up.txt"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    found = read_all(_source(tmp_path / "a.tar"))
    assert (found.column("id"), found.column("text")) == (["../up"], [b"x"])


def test_text_task_and_kept_columns_may_be_members_or_json_fields(tmp_path: Path) -> None:
    members = [
        ("a.json", json.dumps({"title": "A", "caption": "from json", "year": 1}).encode()),
        ("a.task", b" code.passage\n"),
        ("b.json", json.dumps({"title": None, "year": 2}).encode()),
        ("b.caption", b"from member"),
        ("b.task", b"text-matching"),
        ("c.json", b"not json"),
        ("c.task", b"retrieval.query"),
        ("c.caption", b"c"),
    ]
    source = _source(
        _tar(tmp_path / "a.tar", members),
        text="caption",
        task={"column": "task"},
        keep=["title", "year"],
    )
    found = read_all(source)
    assert found.column("text") == [b"from json", b"from member", b"c"]
    assert found.column("task") == ["code.passage", "text-matching", "retrieval.query"]
    assert found.column("kept") == [
        {"title": "A", "year": 1},
        {"title": None, "year": 2},
        {"title": None, "year": None},
    ]
    assert found.plan.kept == (pa.field("title", pa.string()), pa.field("year", pa.int64()))


def test_an_extension_may_be_named_and_a_modality_left_out(tmp_path: Path) -> None:
    members = [("a.txt", b"t"), ("a.md", b"m"), ("a.png", b"p"), ("a.jpg", b"j")]
    path = _tar(tmp_path / "a.tar", members)
    assert read_all(_source(path, text="md", image="png")).column("image") == [b"p"]
    assert read_all(_source(path, text="md")).column("text") == [b"m"]
    (row,) = read_all(_source(path, image=None)).rows
    assert (row["text"], row["image"]) == (b"t", None)
    (row,) = read_all(_source(path, text=None)).rows
    assert (row["text"], row["image"]) == (None, b"j")


def test_a_member_name_that_is_not_utf8_does_not_end_the_run(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", [("a\udcff.txt", b"x"), ("b.txt", b"y")], "gnu")
    assert read_all(_source(path)).plan.rows == 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"text": "md"}, "source.text"),
        ({"image": "md"}, "source.image"),
        ({"text": "md", "keep": ["year"]}, "source.text"),
        ({"task": {"column": "md"}}, "source.task.column"),
        ({"keep": ["md"]}, "source.keep"),
    ],
)
@pytest.mark.fault("column.missing")
def test_a_column_no_sample_has_is_refused_and_those_that_exist_are_named(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    path = _tar(tmp_path / "a.tar", [("a.txt", b"t"), ("a.json", b'{"year": 1}')])
    sentence = _refusal(_source(path, **changes))
    assert sentence.startswith(f"{key}: no sample of {path} has a member or json field 'md'; ")
    assert "txt" in sentence
    assert "json" in sentence


@pytest.mark.fault("file.corrupt")
def test_a_file_that_is_no_plain_tar_is_refused_by_name(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", [("a.txt", b"t" * 5000), ("b.txt", b"t" * 5000)])
    whole = path.read_bytes()
    for content in (whole[:3000], whole[: 5000 + 1200 + 100], b"<html>" * 200):
        path.write_bytes(content)
        assert f"{path} cannot be read as an uncompressed tar: " in _refusal(_source(path))
    with tarfile.open(path, "w:gz"):
        pass
    assert f"{path} cannot be read" in _refusal(_source(path))


@pytest.mark.fault("file.nothing")
def test_a_tar_without_samples_is_refused(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", [])
    assert "has no rows; an empty source is refused" in _refusal(_source(path))


@pytest.mark.fault("column.type")
def test_a_kept_field_with_values_of_different_types_is_refused(tmp_path: Path) -> None:
    members = [("a.json", b'{"year": 1}'), ("a.txt", b"a"), ("b.json", b'{"year": "x"}')]
    path = _tar(tmp_path / "a.tar", [*members, ("b.txt", b"b")])
    assert f"source.keep: 'year' has values of different types in {path}" in _refusal(
        _source(path, keep=["year"])
    )


@pytest.mark.fault("file.corrupt")
def test_a_tar_that_was_cut_damaged_or_doubled_is_refused_and_no_sample_vanishes(
    tmp_path: Path,
) -> None:
    path = _tar(tmp_path / "a.tar", [(f"{n}.txt", b"t" * 100) for n in range(5)])
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[2 * 1024 + 5] ^= 0xFF
    for content in (whole[: 3 * 1024], bytes(damaged), whole + whole):
        path.write_bytes(content)
        assert f"{path} cannot be read as an uncompressed tar: " in _refusal(_source(path))
    path.write_bytes(whole)
    assert read_all(_source(path)).plan.rows == 5
