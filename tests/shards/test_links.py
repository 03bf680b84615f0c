"""Symbolic links below a source: read like what they lead to, or refused; never passed over."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.storage import list_objects
from tests.shards import read_all

_NAMES = {"parquet": "a.parquet", "jsonl": "a.jsonl", "images": "a.png"}


def _source(uri: object, kind: str) -> dict[str, Any]:
    mapped = {} if kind == "images" else {"id": "id", "text": "text"}
    return {"uri": str(uri), "format": kind, "task": "text-matching"} | mapped


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": [path.stem], "text": [path.stem]}), path)
    elif path.suffix == ".jsonl":
        path.write_text(json.dumps({"id": path.stem, "text": path.stem}) + "\n")
    else:
        path.write_bytes(path.stem.encode())


@pytest.mark.fault("file.link")
@pytest.mark.parametrize("pattern", ["", "/*"])
@pytest.mark.parametrize("kind", _NAMES)
def test_a_link_within_the_source_is_read_like_the_file_it_leads_to(
    tmp_path: Path, kind: str, pattern: str
) -> None:
    docs, name = tmp_path / "docs", _NAMES[kind]
    _write(docs / "deep" / name)
    _write(docs / f"b{Path(name).suffix}")
    (docs / name).symlink_to(f"deep/{name}")
    found = {Path(o.uri).relative_to(docs): o for o in list_objects(f"{docs}{pattern}")}
    linked = found[Path(name)]
    target = (docs / "deep" / name).stat()
    assert (linked.size, linked.etag) == (target.st_size, str(target.st_mtime))
    assert read_all(_source(f"{docs}{pattern}", kind)).plan.rows == (2 if pattern else 3)
    # what it leads to has another content, and so has the link
    os.utime(docs / "deep" / name, (1, 1))
    assert {o.etag for o in list_objects(str(docs)) if o.uri == linked.uri} == {"1.0"}


_LINKS = {
    "out": ("../other/a.parquet", "which is outside .*docs: name what it leads to in source.uri"),
    "out, a directory": ("../other", "which is outside .*docs"),
    "broken": ("gone.parquet", "which is no file that is there"),
    "a circle": ("link.parquet", "which is (outside|no file)"),
    "a directory": ("deep", "which is a directory, .*: name it in source.uri"),
}


@pytest.mark.fault("file.link")
@pytest.mark.parametrize("pattern", ["", "/*"])
@pytest.mark.parametrize("case", _LINKS)
def test_a_link_that_leads_elsewhere_is_refused_by_name(
    tmp_path: Path, case: str, pattern: str
) -> None:
    docs = tmp_path / "docs"
    _write(docs / "deep/a.parquet")
    _write(docs / "b.parquet")
    _write(tmp_path / "other/a.parquet")
    target, expected = _LINKS[case]
    name = "link" if "directory" in case else "link.parquet"
    (docs / name).symlink_to(target)
    expected = f"^{docs}/{name} is a link to {target}, {expected}"
    with pytest.raises(SourceError, match=expected) as told:
        read_all(_source(f"{docs}{pattern}", "parquet"))
    assert "\n" not in str(told.value)


def test_a_link_that_nobody_asked_for_is_no_matter(tmp_path: Path) -> None:
    _write(tmp_path / "docs/b.parquet")
    for name in (".hidden", "notes.txt"):
        (tmp_path / "docs" / name).symlink_to("../gone")
    assert read_all(_source(tmp_path / "docs", "parquet")).plan.rows == 1


def test_a_link_that_is_named_is_read_wherever_it_leads(tmp_path: Path) -> None:
    _write(tmp_path / "other/a.parquet")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/link.parquet").symlink_to("../other/a.parquet")
    (tmp_path / "all").symlink_to("other")
    assert read_all(_source(tmp_path / "docs/link.parquet", "parquet")).plan.rows == 1
    assert read_all(_source(tmp_path / "all", "parquet")).plan.rows == 1
