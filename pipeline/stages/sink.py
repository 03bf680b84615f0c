"""Sink: write a unit's embeddings and its quarantined rows, and return the receipt.

A file is built in memory, hashed, and put once under a name no other attempt has. Then the receipt
is recorded, unless another attempt's is there: the one that is there is returned, and our files
are orphans that no reader sees.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConservationError
from pipeline.folder import Folder
from pipeline.fragments import put_table
from pipeline.manifest import DATA, QUARANTINE
from pipeline.records import Records
from pipeline.schema import quarantine_schema
from pipeline.stages.again import Earlier
from pipeline.work import Receipt, WrittenFile

_NONE: Mapping[str, int] = MappingProxyType({})


class Sink:
    """Embedded items in, receipts out."""

    def __init__(
        self,
        folder: Folder,
        schema: pa.Schema,
        fingerprint: str,
        revisions: Mapping[str, int] = _NONE,
        earlier: Callable[[str], Earlier | None] = lambda unit: None,
    ) -> None:
        """Make the stage.

        Args:
            folder: the dataset's root.
            schema: of the embeddings, from `output_schema`.
            fingerprint: of every embedding.
            revisions: by unit, of its record; 0 for those that are not named.
            earlier: what an earlier attempt at a unit led to, when the unit is tried again.
        """
        self._folder = folder
        self._schema = schema
        self._quarantine = quarantine_schema(schema.field("id").type)
        self._fingerprint = fingerprint
        self._records = Records(folder, fingerprint)
        self._revisions = revisions
        self._earlier = earlier

    def __call__(self, items: pa.Table, unit: str, adapter: str) -> Receipt:
        """Write one unit, a table of `embedded_schema`; the receipt that counts for it.

        Raises:
            ConservationError: an item is there twice, or missing.
            OutputError: the file of an earlier attempt is gone or damaged.
        """
        rows = items["row"].to_pylist()
        pairs = Counter(zip(rows, items["modality"].to_pylist(), strict=True))
        twice = next((pair for pair, count in pairs.items() if count > 1), None)
        if twice is not None:
            raise ConservationError(f"unit {unit}: row {twice[0]} is there twice as {twice[1]}")
        faulty = items.filter(pc.is_valid(items["reason"]))
        # as a rule there is none, and a filter copies every vector
        well = items.filter(pc.is_null(items["reason"])) if faulty.num_rows else items
        embedded, aside = self._output(well), self._set_aside(faulty)
        tokens, source_rows = pc.sum(well["n_tokens"]).as_py() or 0, len(set(rows))
        earlier = self._earlier(unit)
        if earlier is not None:
            earlier.demand_all(items)
            if not well.num_rows:
                # as it was: nothing is worth another file
                return earlier.receipt
            there = earlier.embedded
            embedded = embedded if there is None else pa.concat_tables([there, embedded])
            aside = pa.concat_tables([earlier.left, aside])
            tokens, source_rows = tokens + earlier.receipt.tokens, earlier.receipt.rows
        receipt = Receipt(
            unit=unit,
            adapter=adapter,
            rows=source_rows,
            items=embedded.num_rows + aside.num_rows,
            embedded=dict(Counter(embedded["modality"].to_pylist())),
            quarantined=dict(Counter(aside["reason"].to_pylist())),
            tokens=tokens,
            data=self._write(DATA, embedded, unit),
            quarantine=self._write(QUARANTINE, aside, unit),
        )
        return self._records.record(receipt, self._revisions.get(unit, 0))

    def _output(self, items: pa.Table) -> pa.Table:
        kept = items["kept"].combine_chunks()
        columns = [
            items[name] if name in items.column_names else pc.struct_field(kept, name)
            for name in self._schema.names
        ]
        return pa.table(columns, schema=self._schema)

    def _set_aside(self, items: pa.Table) -> pa.Table:
        columns = [items[name] for name in self._quarantine.names]
        return pa.table(columns, schema=self._quarantine)

    def _write(self, kind: str, table: pa.Table, unit: str) -> WrittenFile | None:
        if table.num_rows == 0:
            return None
        return put_table(self._folder, kind, self._fingerprint, unit, table)
