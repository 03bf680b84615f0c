"""Embed: run the network over the items of a unit. No tokenizer and no image decoder runs here.

A vector that is not finite, or not of length one, is never handed on: its item is embedded once
more, alone and in float32, and given up if that does not help.

Legend: B items, T_i tokens of item i, D size of a vector of a multi-vector.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import Reason, RowError
from pipeline.model.device import device_errors, name_of
from pipeline.model.engine import Engine
from pipeline.model.health import unsound
from pipeline.model.meter import Meter
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem
from pipeline.schema import embedded_schema
from pipeline.stages.bisect import bisect, blame_row
from pipeline.stages.canaries import Canaries
from pipeline.stages.told import DeviceWork

_CONTROL = PreparedItem(token_ids=np.zeros(1, np.int32), pixels=None, truncated=False)
"""An item that a network which works can embed."""


class Embed:
    """Prepared items in, items with vectors out; both as Arrow tables.

    Threads may call it at once: one is on the device while another is at its tables.
    """

    def __init__(
        self,
        engine: Engine,
        exact: Callable[[str], Engine],
        canaries: Canaries,
        id_type: pa.DataType,
        kept: Sequence[pa.Field],
        vectors: Sequence[pa.Field],
    ) -> None:
        """Make the stage.

        Args:
            engine: with the weights loaded.
            exact: makes one that computes in float32, with the adapter it is given; it is let go
                of after use.
            canaries: with which the device is looked at.
            id_type: of the ids.
            kept: the columns carried along.
            vectors: the vector columns wanted, from `vector_fields`.
        """
        self._engine, self._exact, self._canaries = engine, exact, canaries
        # always the same thread: torch keeps threads, and the allocator memory, for each that calls
        self._device = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._work, self._exact_work = DeviceWork(), DeviceWork()
        self._schema = embedded_schema(id_type, kept, vectors)
        types = {field.name: field.type for field in vectors}
        self._multi: pa.ListType | None = types.pop("multivector", None)
        self._singles: dict[str, pa.FixedSizeListType] = types

    @property
    def device(self) -> str:
        """As a person would call it."""
        return name_of(self._engine.device)

    @property
    def packs(self) -> int:
        """How many forward passes it has made."""
        return self._engine.meter.packs

    @property
    def work(self) -> DeviceWork:
        """What the device has done in all, up to the last unit or canary; for any thread."""
        return self._work

    def __call__(self, items: pa.Table, adapter: str) -> pa.Table:
        """One unit: a table of `prepared_schema` to one of `embedded_schema`.

        Raises:
            DeviceLost: the device fails whatever it is asked.
            CanaryDrift: it computes something else than it did, or than others do.
        """

        def blame(error: Exception) -> tuple[Reason, str]:
            return blame_row(error, lambda: self._submit([_CONTROL], adapter))

        self._canaries.before(adapter, self._as_it_comes)
        done = bisect(lambda part: self._embedded(part, adapter), items, "embed", blame)
        tokens = pc.sum(done["n_tokens"]).as_py() or 0
        self._canaries.after(adapter, tokens, self._as_it_comes)
        return done

    def _embedded(self, items: pa.Table, adapter: str) -> pa.Table:
        items = items.combine_chunks()
        prepared = items["reason"].is_null().to_numpy()
        ready = _prepared_items(items.filter(pa.array(prepared)))
        found = self._submit(ready, adapter)
        at = np.flatnonzero(prepared)
        faults = {int(at[index]): fault for index, fault in found.faults.items()}
        well = prepared.copy()
        well[list(faults)] = False
        columns = {name: items[name] for name in items.column_names if name in self._schema.names}
        columns["n_tokens"] = pc.list_value_length(items["token_ids"])
        for name, kind in self._singles.items():
            columns[name] = _singles(found.singles[kind.list_size], prepared, well, kind)
        if self._multi is not None and found.multi is not None:
            columns["multivector"] = _multis(found.multi, prepared, well, self._multi)
        table = pa.table([columns[field.name] for field in self._schema], schema=self._schema)
        return _with_faults(table, faults) if faults else table

    def _submit(self, ready: list[PreparedItem], adapter: str) -> Embeddings:
        return self._device.submit(self._run, ready, adapter).result()

    def _as_it_comes(self, ready: Sequence[PreparedItem], adapter: str) -> Embeddings:
        """What the device makes of some items, whether it is sound or not."""

        def run() -> Embeddings:
            with device_errors():
                self._engine.switch(adapter)
                return self._embed(self._engine, ready)

        return self._device.submit(run).result()

    def _run(self, ready: list[PreparedItem], adapter: str) -> Embeddings:
        with device_errors():
            self._engine.switch(adapter)
            found = self._embed(self._engine, ready)
            suspects = unsound(found)
            if suspects:
                exact = self._exact(adapter)
                self._redo(exact, ready, suspects, found)
                self._exact_work += _work(exact.meter)
                self._work = _work(self._engine.meter) + self._exact_work
        return found

    def _embed(self, engine: Engine, items: Sequence[PreparedItem]) -> Embeddings:
        found = engine.embed(
            items,
            dims=[kind.list_size for kind in self._singles.values()],
            multi=self._multi is not None,
            multi_dtype="float32" if self._multi is None else _float_name(self._multi),
        )
        if engine is self._engine:
            # a meter is for the device's thread alone, which this is; what is made of it is not
            self._work = _work(engine.meter) + self._exact_work
        return found

    def _redo(
        self,
        engine: Engine,
        ready: Sequence[PreparedItem],
        suspects: Sequence[int],
        found: Embeddings,
    ) -> None:
        """Put better vectors, or the reason why there are none, into what was found."""
        for index in suspects:
            alone = self._embed(engine, [ready[index]])
            if unsound(alone):
                message = "its vectors are not finite, or not of length 1, in float32 either"
                alone.faults[0] = RowError(Reason.NON_FINITE, message)
            if alone.faults:
                found.faults[index] = alone.faults[0]
            for dim, single_BD in alone.singles.items():
                found.singles[dim][index] = single_BD[0]
            if found.multi is not None and alone.multi is not None:
                found.multi[index] = alone.multi[0]


def _work(meter: Meter) -> DeviceWork:
    return DeviceWork(
        packs=meter.packs,
        items=meter.items,
        images=meter.images,
        tokens=meter.tokens,
        patches=meter.patches,
        padding=meter.padding,
        busy_seconds=meter.busy_seconds,
    )


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
    single_BH: NDArray[np.float32],
    prepared: NDArray[np.bool_],
    well: NDArray[np.bool_],
    kind: pa.FixedSizeListType,
) -> pa.FixedSizeListArray:
    spread = np.zeros((len(well), single_BH.shape[1]), kind.value_type.to_pandas_dtype())
    spread[prepared] = single_BH
    return pa.FixedSizeListArray.from_arrays(
        pa.array(spread.reshape(-1)), type=kind, mask=pa.array(~well)
    )


def _multis(
    multis: list[NDArray[np.floating]],
    prepared: NDArray[np.bool_],
    well: NDArray[np.bool_],
    kind: pa.ListType,
) -> pa.ListArray:
    lengths = np.zeros(len(well), np.int64)
    lengths[prepared] = [len(multi_TD) for multi_TD in multis]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    dtype = kind.value_type.value_type.to_pandas_dtype()
    flat = np.concatenate([np.empty(0, dtype), *(multi_TD.reshape(-1) for multi_TD in multis)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), vectors, type=kind, mask=pa.array(~well))


def _float_name(kind: pa.ListType) -> str:
    return str(np.dtype(kind.value_type.value_type.to_pandas_dtype()).name)


def _with_faults(table: pa.Table, faults: Mapping[int, RowError]) -> pa.Table:
    """The table with the reasons why some items were given up."""
    told: dict[str, Callable[[RowError], str]] = {
        "reason": lambda fault: str(fault.reason),
        "stage": lambda _: "embed",
        "message": str,
    }
    for name, tell in told.items():
        values = table[name].to_pylist()
        for at, fault in faults.items():
            values[at] = tell(fault)
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), pa.array(values, pa.string()))
    return table
