"""One run of many rows on many GPUs: each formula, and where it comes from."""

import math
from dataclasses import dataclass

from benchmarks.simulation.slopes import Measured
from pipeline.stages import waves


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What has not been measured."""

    rows_per_gpu_second: float = 100.0
    """Texts of 200 tokens: 2 x 3.1e9 x 200 FLOP each, and 125 TFLOP/s of a device. No GPU has run
    Nightjar yet, so everything in seconds of GPU is this number's."""
    unit_rows: int = 1024
    """`shape.TEXT_UNIT_ROWS`."""
    shard_rows: int = 1_000_000
    """As in the simulation."""
    bytes_in: int = 1000
    """Of a row's text in its shard."""
    bytes_out: int = 2048 * 4 + 200 * 128 * 2
    """Of a row's vectors: 2048 float32, and 200 tokens of 128 float16."""
    reads_per_unit: float = 4.0
    """GETs for a unit: footer in two, two column chunks. Simulated workers read nothing."""
    put_price: float = 0.005 / 1000
    """Dollars for a PUT or LIST: S3 Standard's list price in us-east-1."""
    get_price: float = 0.0004 / 1000
    """Dollars for a GET or HEAD, likewise."""
    request_seconds: float = 0.03
    """For which the driver waits for one small object."""
    requests_at_once: int = 32
    """`records._RECORDS_AT_ONCE`."""
    checkpoint_bytes: float = 7.5e9
    """Of the weights, fetched once for each node."""
    gpus_per_node: int = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """A first night of so many rows on so many GPUs."""

    rows: int
    gpus: int
    known: Measured
    assumed: Assumed

    @property
    def units(self) -> int:
        """`plan._units`: slices of segments; here a row group is a unit."""
        return math.ceil(self.rows / self.assumed.unit_rows)

    @property
    def gpu_seconds(self) -> float:
        """On the wall, were the GPUs all that it takes."""
        return self.rows / self.assumed.rows_per_gpu_second / self.gpus

    @property
    def units_per_second(self) -> float:
        """That the GPUs would do."""
        return self.gpus * self.assumed.rows_per_gpu_second / self.assumed.unit_rows

    @property
    def dispatched_per_second(self) -> float:
        """Units that one driver can hand out: it has one core, since Ray Data's loop is Python."""
        return 1 / self.known.ray_unit_cpu

    @property
    def busy(self) -> float:
        """Share of the driver's one core that the GPUs want."""
        return self.units_per_second / self.dispatched_per_second

    @property
    def wall(self) -> float:
        """Seconds of embedding: the slower of the GPUs and the driver."""
        return self.gpu_seconds * max(1.0, self.busy)

    @property
    def plan_bytes(self) -> float:
        """Of the driver while it plans, ids compared."""
        return self.known.imported + self.known.row_bytes * self.rows

    @property
    def kept_plan_bytes(self) -> float:
        """Of the driver while it plans, ids not compared."""
        return self.known.imported + self.known.kept_row_bytes * self.rows

    @property
    def wave(self) -> int:
        """Units of one execution: `waves`."""
        return min(self.units, max(waves.UNITS, self.gpus * waves.UNITS_OF_ACTOR))

    @property
    def wave_bytes(self) -> float:
        """Of the driver, for the units of one execution."""
        return self.known.ray_unit_bytes * self.wave

    @property
    def drive_bytes(self) -> float:
        """Of the driver on Ray: connected, a wave, and the receipts of all units."""
        return self.known.ray_bytes + self.wave_bytes + self.known.unit_bytes * self.units

    @property
    def driver_cpu(self) -> float:
        """Seconds: planning, Ray, and the protocol."""
        known = self.known
        return known.row_cpu * self.rows + (known.ray_unit_cpu + known.unit_cpu) * self.units

    @property
    def again_cpu(self) -> float:
        """Seconds of a night in which nothing has changed."""
        return self.known.again_row_cpu * self.rows + self.known.again_unit_cpu * self.units

    @property
    def manifest_bytes(self) -> float:
        """Of the one object that names all files."""
        return self.known.manifest_unit_bytes * self.units

    @property
    def open_bytes(self) -> float:
        """Of memory, of who opens the snapshot."""
        return self.known.imported + self.known.open_unit_bytes * self.units

    @property
    def open_cpu(self) -> float:
        """Seconds, to open it."""
        return self.known.open_unit_cpu * self.units

    @property
    def written_bytes(self) -> float:
        """Of vectors."""
        return self.rows * self.assumed.bytes_out

    @property
    def waiting(self) -> float:
        """Seconds in which the driver waits for records to be read, for a network's sake."""
        return self.units * self.assumed.request_seconds / self.assumed.requests_at_once

    @property
    def shards(self) -> int:
        """Objects of the source."""
        return math.ceil(self.rows / self.assumed.shard_rows)

    @property
    def objects(self) -> int:
        """That the run leaves: data and record of each unit, an inspection of each shard."""
        return 2 * self.units + self.shards

    @property
    def puts(self) -> float:
        """PUTs and LISTs."""
        return self.objects + self.known.lists_per_unit * self.units

    @property
    def gets(self) -> float:
        """GETs: of input by workers, of records by the driver, of ids by the planner."""
        return (self.assumed.reads_per_unit + 1) * self.units + 14 * self.shards

    @property
    def dollars(self) -> float:
        """For requests."""
        return self.puts * self.assumed.put_price + self.gets * self.assumed.get_price

    @property
    def gigabits(self) -> float:
        """A second, in and out of the object store, while the GPUs are busy."""
        moved = self.rows * (self.assumed.bytes_in + self.assumed.bytes_out)
        return 8 * moved / self.wall / 1e9

    @property
    def board_busy(self) -> float:
        """Share of one core that the board takes, at the pace of the GPUs."""
        return self.units_per_second * self.known.board_unit_cpu

    @property
    def checkpoint_terabytes(self) -> float:
        """Fetched by the nodes at the start."""
        nodes = math.ceil(self.gpus / self.assumed.gpus_per_node)
        return nodes * self.assumed.checkpoint_bytes / 1e12
