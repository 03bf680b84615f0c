"""Embed: run the network over the items of a unit. No tokenizer and no image decoder runs here.

Legend: B items, T_i tokens of item i, D size of a vector of a multi-vector.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.model.engine import Engine
from pipeline.model.processor import PreparedItem
from pipeline.schema import embedded_schema


class Embed:
    """Prepared items in, items with vectors out; both as Arrow tables."""

    def __init__(
        self,
        engine: Engine,
        id_type: pa.DataType,
        kept: Sequence[pa.Field],
        vectors: Sequence[pa.Field],
    ) -> None:
        """Make the stage.

        Args:
            engine: with the weights loaded.
            id_type: of the ids.
            kept: the columns carried along.
            vectors: the vector columns wanted, from `vector_fields`.
        """
        self._engine = engine
        self._schema = embedded_schema(id_type, kept, vectors)
        self._vectors = {field.name: field.type for field in vectors}

    def __call__(self, items: pa.Table, adapter: str) -> pa.Table:
        """One unit: a table of `prepared_schema` to one of `embedded_schema`."""
        self._engine.switch(adapter)
        items = items.combine_chunks()
        well = items["reason"].is_null().to_numpy()
        single = self._vectors.get("embedding")
        found = self._engine.embed(
            _prepared_items(items.filter(pa.array(well))),
            dims=[] if single is None else [single.list_size],
            multi="multivector" in self._vectors,
        )
        columns = {name: items[name] for name in items.column_names if name in self._schema.names}
        columns["n_tokens"] = pc.list_value_length(items["token_ids"])
        if single is not None:
            columns["embedding"] = _singles(found.single, well, single)
        if found.multi is not None:
            columns["multivector"] = _multis(found.multi, well, self._vectors["multivector"])
        return pa.table([columns[field.name] for field in self._schema], schema=self._schema)


def _prepared_items(items: pa.Table) -> list[PreparedItem]:
    """Views on the table's buffers, no copies."""
    lists = items["token_ids"].combine_chunks()
    ids, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    return [
        PreparedItem(
            token_ids=ids[start:stop],
            pixels=None
            if not pixels.is_valid
            else np.frombuffer(pixels.as_buffer(), np.uint8).reshape(height, width, 3),
            truncated=truncated,
        )
        for start, stop, pixels, height, width, truncated in zip(
            offsets[:-1],
            offsets[1:],
            items["pixels"],
            items["height"].to_pylist(),
            items["width"].to_pylist(),
            items["truncated"].to_pylist(),
            strict=True,
        )
    ]


def _singles(
    single_BH: NDArray[np.float32], well: NDArray[np.bool_], kind: pa.FixedSizeListType
) -> pa.FixedSizeListArray:
    spread = np.zeros((len(well), single_BH.shape[1]), kind.value_type.to_pandas_dtype())
    spread[well] = single_BH
    return pa.FixedSizeListArray.from_arrays(
        pa.array(spread.reshape(-1)), type=kind, mask=pa.array(~well)
    )


def _multis(
    multis: list[NDArray[np.float32]], well: NDArray[np.bool_], kind: pa.ListType
) -> pa.ListArray:
    inner = kind.value_type
    dtype = inner.value_type.to_pandas_dtype()
    lengths = np.zeros(len(well), np.int64)
    lengths[well] = [len(multi_TD) for multi_TD in multis]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.concatenate([np.empty(0, dtype), *(m.astype(dtype).reshape(-1) for m in multis)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=inner)
    return pa.ListArray.from_arrays(pa.array(offsets), vectors, type=kind, mask=pa.array(~well))
