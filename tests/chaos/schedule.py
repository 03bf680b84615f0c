"""What happens in a round, drawn from its seed: who is killed, when, and what else goes wrong."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Victim(StrEnum):
    """What is killed."""

    RAYLET = "raylet"
    """A node: its raylet with all its workers; another joins."""
    WORKER = "worker"
    """A process that reads, prepares or writes."""
    ACTOR = "actor"
    """A process that holds the model."""
    DRIVER = "driver"
    """`nightjar embed` itself; the same command is run again."""


class Scene(StrEnum):
    """What else is going on."""

    ALONE = "one driver"
    RACE = "a second driver, without Ray, on the same output"
    STORE = "a store that fails"


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One kill."""

    victim: Victim
    """Of which kind."""
    after: float
    """The share of the units that have a record by then."""
    pause: float
    """Seconds to wait from then on."""
    place: float
    """From 0 to 1: which of those there are."""
    twice: bool
    """Whether two are killed at once, where there are two."""

    def __str__(self) -> str:
        number = "two of " if self.twice else ""
        return f"{number}{self.victim} at {self.after:.0%} and {self.pause:.2f} s"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A round: the same for the same seed."""

    seed: int
    scene: Scene
    shares_pool: bool
    """Whether one actor serves both adapters, and leaves its node no room for tasks."""
    strikes: tuple[Strike, ...]
    """In the order of their moments."""

    @classmethod
    def draw(cls, seed: int) -> "Schedule":
        """The round of a seed. The first kill goes round among the kinds, and so does the scene."""
        random = Random(seed)
        scene = list(Scene)[seed % len(Scene)]
        kinds = [list(Victim)[seed % len(Victim)], random.choice(list(Victim))]
        if random.random() < 0.5:
            kinds.append(random.choice(list(Victim)))
        if scene is Scene.RACE and Victim.DRIVER not in kinds:
            kinds[-1] = Victim.DRIVER
        strikes = [_strike(victim, random) for victim in kinds]
        strikes.sort(key=lambda strike: strike.after)
        return cls(
            seed=seed, scene=scene, shares_pool=random.random() < 0.5, strikes=tuple(strikes)
        )

    def __str__(self) -> str:
        pools = "one pool" if self.shares_pool else "a pool each"
        return f"round {self.seed}, {self.scene}, {pools}: " + ", ".join(map(str, self.strikes))


def _strike(victim: Victim, random: Random) -> Strike:
    early, late = random.random() < 0.2, victim is Victim.DRIVER and random.random() < 0.3
    return Strike(
        victim=victim,
        # the start takes longest, and the end is when the commit is made
        after=0.0 if early else 1.0 if late else random.random(),
        pause=random.uniform(1, 15) if early else random.uniform(0, 0.4),
        place=random.random(),
        twice=victim in (Victim.ACTOR, Victim.WORKER) and random.random() < 0.3,
    )
