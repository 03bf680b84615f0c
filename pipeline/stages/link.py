"""Link: write rows whose vectors are there already, each with the place where they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConservationError
from pipeline.folder import Folder
from pipeline.fragments import links_schema, put_table
from pipeline.manifest import LINKS
from pipeline.nightly.signs import content_of
from pipeline.records import Records
from pipeline.schema import VECTOR_FILE, VECTOR_ROW
from pipeline.stages.contents import asked_of, read_rows
from pipeline.work import Link, Receipt, WorkUnit


class Linker:
    """Source rows and where their vectors are in, receipts out."""

    def __init__(
        self, folder: Folder, schema: pa.Schema, fingerprint: str, revisions: Mapping[str, int]
    ) -> None:
        """Make the stage.

        Args:
            folder: the dataset's root.
            schema: of its rows.
            fingerprint: of every embedding.
            revisions: by unit, of its record; 0 for those that are not named.
        """
        self._folder = folder
        self._schema = links_schema(schema)
        self._fingerprint = fingerprint
        self._records = Records(folder, fingerprint)
        self._revisions = revisions

    def __call__(self, rows: pa.Table, unit: WorkUnit) -> Receipt:
        """Write the links of a unit; the receipt that counts for it.

        Args:
            rows: what its items are of, a table of `source_schema`.
            unit: with links.

        Raises:
            ConservationError: an item is not there, or its content is another than was planned.
        """
        links, at = self._placed(rows, unit)
        taken = rows.combine_chunks().take(pa.array(at, pa.int64()))
        asked = [asked_of(row) for row in read_rows(taken)]
        hashes = [
            next(each.source_hash for each in found if each.modality == link.item.modality)
            for link, found in zip(links, asked, strict=True)
        ]
        table = self._table(taken, links, hashes)
        key = unit.key(self._fingerprint)
        receipt = Receipt(
            unit=key,
            adapter=unit.adapter,
            rows=len(set(taken["row"].to_pylist())),
            items=table.num_rows,
            embedded={},
            quarantined={},
            tokens=0,
            data=None,
            quarantine=None,
            linked=dict(Counter(table["modality"].to_pylist())),
            links=put_table(self._folder, LINKS, self._fingerprint, key, table),
            refers=tuple(sorted({link.path for link in links})),
        )
        return self._records.record(receipt, self._revisions.get(key, 0))

    def _table(
        self, rows: pa.Table, links: Sequence[Link], hashes: Sequence[bytes | None]
    ) -> pa.Table:
        kept = rows["kept"].combine_chunks()
        columns: dict[str, list[Any]] = {
            "modality": [link.item.modality for link in links],
            "source_hash": list(hashes),
            VECTOR_FILE: [link.path for link in links],
            VECTOR_ROW: [link.at for link in links],
        }
        own = {"id": rows["id"], "task": rows["task"]} | {
            name: pa.array(values, self._schema.field(name).type)
            for name, values in columns.items()
        }
        # as Arrow has them: not every value of a kept column is one of Python
        arrays = [
            own[name] if name in own else pc.struct_field(kept, name) for name in self._schema.names
        ]
        return pa.table(arrays, schema=self._schema)

    def _placed(self, rows: pa.Table, unit: WorkUnit) -> tuple[list[Link], list[int]]:
        """The links, and at which of the rows each is."""
        contents: dict[tuple[int, str], tuple[int, str]] = {}
        numbers, tasks = rows["row"].to_pylist(), rows["task"].to_pylist()
        for at, row in enumerate(read_rows(rows)):
            for each in asked_of(row):
                if each.source_hash is not None:
                    content = content_of(tasks[at], each.source_hash).hex()
                    contents[numbers[at], str(each.modality)] = (at, content)
        links = list(unit.links or ())
        places = []
        for link in links:
            at, content = contents.get((link.item.row, str(link.item.modality)), (-1, ""))
            if content != link.content:
                raise ConservationError(
                    f"{unit.segment.shard.uri}: row {link.item.row} is not what was compared"
                )
            places.append(at)
        return links, places
