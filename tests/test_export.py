"""A snapshot copied to Parquet and Lance holds the same rows, and says when it cannot."""

import json
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.dataset import Dataset
from pipeline.errors import OutputError
from pipeline.export import MARKER, read_multivectors, to_lance, to_parquet
from tests.jobs import write_parquet, write_spec


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Dataset:
    """Four texts in two fragments, single and multi-vectors."""
    root = tmp_path_factory.mktemp("dataset")
    output = {"uri": str(root / "out"), "single": {"dim": 16}, "multi": {"dtype": "float16"}}
    spec = write_spec(root, tiny_checkpoint, write_parquet(root / "a.parquet"), output)
    assert main(["embed", str(spec), "--address", "none", "--set", "compute.unit_rows=2"]) == 0
    found = open_dataset(str(root / "out"))
    assert len(found.fragments) == 2
    return found


def test_parquet_has_the_rows_and_its_multivectors_can_be_had_back(
    dataset: Dataset, tmp_path: Path
) -> None:
    assert to_parquet(dataset, str(tmp_path / "pq")) == 4
    found = pq.read_table(tmp_path / "pq", partitioning=None)
    expected = dataset.to_table()
    same = [name for name in expected.column_names if name != "multivector"]
    assert found.select(same).equals(expected.select(same))
    column = found["multivector"].combine_chunks()
    assert column.type == pa.list_(pa.field("element", pa.binary(256)))
    described = found.schema.field("multivector").metadata
    assert (described[b"dtype"], described[b"dim"]) == (b"halffloat", b"128")
    assert read_multivectors(found).equals(expected)
    # a slice has an offset of its own
    assert read_multivectors(found[2:]).to_pylist() == expected[2:].to_pylist()


def test_parquet_is_read_by_polars_with_its_single_vectors(
    dataset: Dataset, tmp_path: Path
) -> None:
    to_parquet(dataset, str(tmp_path / "pq"))
    frame = pl.read_parquet(tmp_path / "pq" / "*.parquet")
    expected = np.stack(dataset.to_table()["embedding"].to_numpy())
    assert np.array_equal(np.stack(frame["embedding"].to_list()).astype(np.float32), expected)


def test_lance_has_the_rows_and_the_types(dataset: Dataset, tmp_path: Path) -> None:
    assert to_lance(dataset, str(tmp_path / "docs.lance")) == 4
    found = lance.dataset(str(tmp_path / "docs.lance")).to_table()
    expected = dataset.to_table()
    assert found.schema.equals(expected.schema)
    assert found.equals(expected)


def test_the_marker_is_there_and_names_the_snapshot(dataset: Dataset, tmp_path: Path) -> None:
    to_parquet(dataset, str(tmp_path / "pq"))
    marker = json.loads((tmp_path / "pq" / MARKER).read_text())
    assert (marker["version"], marker["rows"]) == (1, 4)


@pytest.mark.parametrize("to", ["parquet", "lance"])
def test_a_destination_that_is_not_empty_is_refused(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    (tmp_path / "there.txt").write_text("x")
    assert main(["export", dataset.uri, "--format", to, str(tmp_path)]) == 2
    assert "is not empty, it holds" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]


def test_a_damaged_fragment_is_not_passed_on(
    dataset: Dataset, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    fragment = Path(dataset.uri) / dataset.fragments[1].path
    whole = fragment.read_bytes()
    try:
        fragment.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
        assert main(["export", dataset.uri, "--format", "parquet", str(tmp_path / "pq")]) == 2
        assert not (tmp_path / "pq" / MARKER).exists()
    finally:
        fragment.write_bytes(whole)


def test_an_export_that_fails_leaves_nothing_and_can_be_tried_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = Path(dataset.uri, dataset.fragments[1].path)
    data = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(OutputError, match="is gone"):
            to_parquet(dataset, str(tmp_path / "pq"))
    finally:
        path.write_bytes(data)
    assert not list((tmp_path / "pq").iterdir())
    assert to_parquet(dataset, str(tmp_path / "pq")) == 4
