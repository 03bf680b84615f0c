"""A dataset whose vectors are known, committed version by version as nights would commit it."""

import datetime
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.commit import Snapshot as Made
from pipeline.commit import commit
from pipeline.dataset import open_dataset
from pipeline.folder import Folder
from pipeline.fragments import links_schema, put_table
from pipeline.index.rows import Snapshot
from pipeline.log import newest_entry
from pipeline.manifest import DATA, LINKS, VECTORS, Manifest, Part
from pipeline.schema import output_schema, vector_fields

DIM, MULTI_DIM = 16, 8
KEPT = (
    pa.field("title", pa.string()),
    pa.field("year", pa.int32()),
    pa.field("weight", pa.float32()),
    pa.field("draft", pa.bool_()),
    pa.field("seen", pa.timestamp("ms")),
    pa.field("tags", pa.list_(pa.string())),
)


def schema_of(dim: int = DIM, made_by: str = "made by") -> pa.Schema:
    """Of a dataset whose vectors were made in some way."""
    vectors = vector_fields(
        dim=dim, single_dtype="float32", multi_dim=MULTI_DIM, multi_dtype="float16"
    )
    return output_schema(pa.string(), KEPT, vectors, {"fingerprint": made_by})


@dataclass(kw_only=True)
class Corpus:
    """A dataset that is written to by hand."""

    root: Path | str
    made_by: str = "made by"
    dim: int = DIM
    parts: dict[str, Part] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def folder(self) -> Folder:
        """Its root."""
        return Folder(str(self.root))

    @property
    def schema(self) -> pa.Schema:
        """Of its rows."""
        return schema_of(self.dim, self.made_by)

    def add(self, ids: Sequence[str], salt: int = 0, **columns: Any) -> str:
        """A file of rows; its path."""
        rows = [self.row(name, salt) | columns for name in ids]
        table = pa.Table.from_pylist(rows, self.schema)
        written = put_table(self.folder, DATA, self.fingerprint, uuid.uuid4().hex, table)
        part = Part(kind=DATA, shard="shard", unit="unit", adapter="retrieval", file=written)
        self.parts[written.path] = part
        self.rows[written.path] = rows
        return written.path

    def link(self, rows: Sequence[tuple[str, int]], prefix: str) -> str:
        """A file of links to rows of other files, each under a name of its own; its path."""
        linked = [self.rows[path][at] | {"id": f"{prefix}{n}"} for n, (path, at) in enumerate(rows)]
        where = [{"vector_file": path, "vector_row": at} for path, at in rows]
        schema = links_schema(self.schema)
        table = pa.Table.from_pylist(
            [row | place for row, place in zip(linked, where, strict=True)], schema
        )
        written = put_table(self.folder, LINKS, self.fingerprint, uuid.uuid4().hex, table)
        self.parts[written.path] = Part(
            kind=LINKS,
            shard="shard",
            unit="unit",
            adapter="retrieval",
            file=written,
            refers=tuple(sorted({path for path, _ in rows})),
        )
        self.rows[written.path] = linked
        return written.path

    def lend(self, path: str) -> None:
        """A file has no rows of its own any more, only vectors of links."""
        part = self.parts[path]
        self.parts[path] = replace(part, kind=VECTORS, shard="", dead=())

    def bury(self, path: str, *at: int) -> None:
        """Rows of a file are no more."""
        part = self.parts[path]
        self.parts[path] = replace(part, dead=tuple(sorted({*part.dead, *at})))

    def drop(self, path: str) -> None:
        """A file is no more."""
        del self.parts[path]

    def commit(self) -> Snapshot:
        """The next version, with all that is there now."""
        made = Made(
            manifest=Manifest.of([], self.parts.values()),
            schema=self.schema,
            fingerprint=self.fingerprint,
            source_digest=uuid.uuid4().hex,
        )
        commit(self.folder, made, newest_entry(self.folder))
        return self.snapshot()

    def snapshot(self, version: int | None = None) -> Snapshot:
        """One that was committed."""
        return Snapshot.of(open_dataset(str(self.root), version))

    def living(self) -> list[dict[str, Any]]:
        """All rows that are there now."""
        return [
            row
            for path, part in self.parts.items()
            if part.kind != VECTORS
            for at, row in enumerate(self.rows[path])
            if at not in part.dead
        ]

    @property
    def fingerprint(self) -> str:
        """Of every embedding."""
        return hashlib.sha256(self.made_by.encode()).hexdigest()

    def row(self, name: str, salt: int = 0) -> dict[str, Any]:
        """A row whose vectors and columns follow from its id and a salt."""
        seed = int.from_bytes(hashlib.sha256(f"{name}/{salt}".encode()).digest()[:8], "big")
        random = np.random.default_rng(seed)
        tokens = int(random.integers(1, 9))
        return {
            "id": name,
            "modality": "text",
            "task": "retrieval.passage",
            "title": f"The title of {name}, 'quoted'; salt {salt}",
            "year": int(2000 + seed % 20),
            "weight": float(seed % 7) / 4,
            "draft": bool(seed % 2),
            "seen": datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=seed % 1000),
            "tags": ["a", "b"][: seed % 3],
            "n_tokens": tokens,
            "truncated": False,
            "source_hash": hashlib.sha256(f"{name}/{salt}".encode()).digest(),
            "embedding": _unit(random, 1, self.dim)[0],
            "multivector": list(_unit(random, tokens, MULTI_DIM).astype(np.float16)),
        }


def names(count: int, prefix: str = "doc") -> list[str]:
    """So many ids."""
    return [f"{prefix}-{number}" for number in range(count)]


def by_id(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows by their id."""
    return {str(row["id"]): row for row in rows}


def _unit(random: np.random.Generator, count: int, size: int) -> np.ndarray:
    vectors = random.standard_normal((count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
