"""The documents of an evaluation: what of a snapshot queries are to find.

They are the rows of the task that answers the queries' own (`pipeline.tasks.answering`): what was
embedded as a query, or by another adapter, is no document. A document is an id, as text, and may
have several rows: its text, its image.

Documents are numbered with the greatest id first: of documents with equal scores the lower number
is then the one that trec_eval puts first. Vectors are read where they lie, file by file, one file
at a time, and each once: rows that are links of one another have one score, to the last bit.

Legend: D documents, N rows, V vectors of rows, or multi-vectors, each once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import SpecError
from pipeline.fragments import read_columns
from pipeline.index.points import ORIGIN_FILE, ORIGIN_ROW
from pipeline.index.rows import Rows, Snapshot, with_origins
from pipeline.schema import vector_columns
from pipeline.tasks import Modality, Task, answering

MULTIVECTOR = "multivector"
_COLUMNS = ("id", "modality", "task", "n_tokens")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows whose vectors lie in one file, some of them or all."""

    path: str
    """Of the file, below the dataset's root."""
    at_V: NDArray[np.int64]
    """Where their vectors are in it: rows of the file, ascending."""
    of_N: NDArray[np.int64]
    """Which of these each row has, ascending."""
    numbers_N: NDArray[np.int64]
    """Of which document each row is."""
    images_N: NDArray[np.bool_]
    """Whether it is of an image."""
    tokens_N: NDArray[np.int64]
    """How many vectors its multi-vector has."""

    def only(self, kept_N: NDArray[np.bool_]) -> "Piece":
        """Some of the rows."""
        used, of_N = np.unique(self.of_N[kept_N], return_inverse=True)
        return Piece(
            path=self.path,
            at_V=self.at_V[used],
            of_N=of_N,
            numbers_N=self.numbers_N[kept_N],
            images_N=self.images_N[kept_N],
            tokens_N=self.tokens_N[kept_N],
        )

    def parts(self, most: int) -> Iterator["Piece"]:
        """The same rows, with so many of the vectors at a time."""
        for start in range(0, len(self.at_V), most):
            yield self.only((self.of_N >= start) & (self.of_N < start + most))


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a snapshot."""

    snapshot: Snapshot
    """That has them."""
    names: tuple[str, ...]
    """Their ids, [D], the greatest first."""
    pieces: tuple[Piece, ...]
    """Their rows, by the files of their vectors."""

    @property
    def rows(self) -> int:
        """How many rows they have."""
        return sum(len(piece.numbers_N) for piece in self.pieces)

    @property
    def vectors(self) -> int:
        """How many vectors their multi-vectors have."""
        return sum(int(piece.tokens_N.sum()) for piece in self.pieces)

    @property
    def has_multi(self) -> bool:
        """Whether they have multi-vectors."""
        return MULTIVECTOR in vector_columns(self.snapshot.schema)

    def read(
        self, column: str, most: int, wanted_D: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[Piece, pa.ChunkedArray]]:
        """Some rows at a time, and the cells of a column that they have, [V].

        Args:
            column: of vectors.
            most: cells at a time.
            wanted_D: which documents are read; None for all. A file without one is not opened.
        """
        for whole in self.pieces:
            piece = whole if wanted_D is None else whole.only(wanted_D[whole.numbers_N])
            if not len(piece.at_V):
                continue
            cells = read_columns(self.snapshot.folder, piece.path, [column])[column]
            for part in piece.parts(most):
                yield part, cells.take(pa.array(part.at_V))


def documents_of(snapshot: Snapshot, task: Task) -> Documents:
    """The documents that queries of a task are to find.

    Args:
        snapshot: to be searched.
        task: of the queries.

    Raises:
        SpecError: the snapshot has none.
    """
    found = []
    for part in snapshot.parts:
        if part.adapter == task.adapter:
            rows = Rows(part=part)
            table = with_origins(snapshot.read(rows, _COLUMNS), snapshot.origins(rows))
            found.append(table.filter(pc.equal(table["task"], answering(task).name)))
    if not sum(table.num_rows for table in found):
        raise _nothing_answers(snapshot, task)
    table = pa.concat_tables(found).unify_dictionaries().combine_chunks()
    ids = list(map(str, table["id"].to_pylist()))
    names = sorted(set(ids), reverse=True)
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.array([number_of[name] for name in ids], np.int64)
    return Documents(snapshot=snapshot, names=tuple(names), pieces=tuple(_pieces(table, numbers)))


def _pieces(table: pa.Table, numbers: NDArray[np.int64]) -> Iterator[Piece]:
    """Rows by the files of their vectors."""
    files = table[ORIGIN_FILE].combine_chunks()
    file, row = files.indices.to_numpy(), table[ORIGIN_ROW].to_numpy()
    images = pc.equal(table["modality"], Modality.IMAGE.value).to_numpy()
    tokens = table["n_tokens"].to_numpy().astype(np.int64)
    order = np.lexsort((row, file))
    ends = np.flatnonzero(np.diff(file[order])) + 1
    for chosen in np.split(order, ends):
        at_V, of_N = np.unique(row[chosen], return_inverse=True)
        yield Piece(
            path=files.dictionary[int(file[chosen[0]])].as_py(),
            at_V=at_V.astype(np.int64),
            of_N=of_N,
            numbers_N=numbers[chosen],
            images_N=images[chosen],
            tokens_N=tokens[chosen],
        )


def _nothing_answers(snapshot: Snapshot, task: Task) -> SpecError:
    there: dict[str, None] = {}
    for part in snapshot.parts:
        tasks = snapshot.read(Rows(part=part), ["task"])["task"]
        there |= dict.fromkeys(tasks.unique().to_pylist())
    return SpecError(
        f"queries.task: {task.name!r} finds rows of {answering(task).name}, and version "
        f"{snapshot.version} of {snapshot.uri!r} has rows of {', '.join(there) or 'no task'} "
        "alone; name the task of the queries that fits, or another dataset"
    )
