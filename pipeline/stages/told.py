"""Told: what workers tell the board of themselves, and what the board tells the driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pipeline.work import Tally


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a unit is embedded."""

    pool: str
    """Of the actor: an adapter, or `shared`."""
    host: str
    """Its address."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """A worker has loaded the model."""

    seat: Seat
    """Of the worker."""
    device: str
    """As a person would call it."""
    seconds: float
    """From its start until it was ready: weights fetched, read, merged, the budget measured."""
    fetch_seconds: float
    """Of these, for weights from object storage to be on the host; 0 where they were there."""

    def sentence(self) -> str:
        """For people."""
        fetch = f", {self.fetch_seconds:.1f} s of it to fetch the weights"
        return (
            f"{self.seat.pool}: model loaded in {self.seconds:.1f} s on {self.seat.host} "
            f"({self.device}){fetch if self.fetch_seconds else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class DeviceWork:
    """Sums over what a device has computed: canaries and units that were tried in vain included."""

    packs: int = 0
    """Forward passes."""
    items: int = 0
    """Texts and images."""
    images: int = 0
    """Of these, images."""
    tokens: int = 0
    """Tokens of items."""
    patches: int = 0
    """Image patches."""
    padding: int = 0
    """Tokens computed that belong to no item."""
    busy_seconds: float = 0.0
    """For which the device was at work."""
    held_seconds: float = 0.0
    """For which a worker has had the device, at work or not."""

    def __add__(self, other: "DeviceWork") -> "DeviceWork":
        names = [entry.name for entry in fields(self)]
        return DeviceWork(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    tallies: Mapping[str, Tally] = field(default_factory=dict)
    """The counts so far, by adapter."""
    moves: int = 0
    """Grows with whatever happens."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """That workers have spent, all together, by stage."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """How many have loaded the model, by device."""
    loads: tuple[Load, ...] = ()
    """Each time that one has, in order."""
    written: Mapping[tuple[Seat, str], Tally] = field(default_factory=dict)
    """The counts so far, by where the units were embedded, and by adapter."""
    devices: Mapping[Seat, DeviceWork] = field(default_factory=dict)
    """What devices have done, by where they are."""
    living: Mapping[Seat, int] = field(default_factory=dict)
    """How many workers with a device there are now."""
    planned: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Source rows to be embedded, by pool and adapter."""
    waiting: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Units that nobody has taken up yet, by pool and by the stage that they wait for."""
    retries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How often a stage was begun again, by pool and stage: mostly since a worker died."""
