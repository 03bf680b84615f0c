"""A store in memory whose every call is a step of the scheduler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.folder import Folder, Listed

Turn = Callable[[str, str], Callable[[], None]]
"""Asks for a turn for (operation, name); returns what is to be called when it has been applied."""


class Store:
    """Objects by name. Whoever asks for one gets the present state; a listing may be an old one."""

    def __init__(self, *, conditional: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.conditional = conditional
        """Whether create refuses a name that is there: a store that ignores the condition does
        not."""
        self.ever: dict[str, int] = {}
        """Sizes by name of all that is there or was."""
        self.listings: list[dict[str, int]] = [{}]
        """Sizes by name after each change, the oldest first."""
        self.modified: dict[str, float] = {}
        """When each was last put, by a clock that counts changes; some are of one moment."""
        self.age = 0
        """How many changes ago the next listing was made."""

    def changed(self, put: str | None = None) -> None:
        """Note what a listing shows from now on, and the time of what was put."""
        if put is not None:
            self.modified[put] = float(len(self.listings) // 2)
        self.listings.append({name: len(data) for name, data in self.objects.items()})
        self.ever |= self.listings[-1]

    def listed(self, prefix: str) -> dict[str, int]:
        """Sizes by name below a prefix, as of some changes ago."""
        seen = self.listings[max(0, len(self.listings) - 1 - self.age)]
        below = f"{prefix}/"
        return {n.removeprefix(below): size for n, size in seen.items() if n.startswith(below)}


class SimulatedFolder(Folder):
    """A dataset's root in a `Store`, as one process sees it."""

    def __init__(self, store: Store, turn: Turn | None = None) -> None:
        # not Folder's own: there is no location
        self.uri = "simulated://dataset"
        self._store = store
        self._turn = turn or (lambda operation, name: lambda: None)

    def get(self, name: str) -> bytes:
        with self._step("get", name):
            try:
                return self._store.objects[name]
            except KeyError:
                raise FileNotFoundError(name) from None

    def put(self, name: str, data: bytes | memoryview) -> None:
        with self._step("put", name):
            self._store.objects[name] = bytes(data)
            self._store.changed(name)

    def create(self, name: str, data: bytes) -> None:
        with self._step("create", name):
            if self._store.conditional and name in self._store.objects:
                raise FileExistsError(name)
            self._store.objects[name] = data
            self._store.changed(name)

    def delete(self, name: str) -> None:
        with self._step("delete", name):
            self._store.objects.pop(name, None)
            self._store.changed()

    def listed(self, prefix: str) -> dict[str, Listed]:
        with self._step("list", prefix):
            found = self._store.listed(prefix).items()
            return {
                name: Listed(size=size, modified=self._store.modified[f"{prefix}/{name}"])
                for name, size in found
                if "/" not in name
            }

    def folders(self, prefix: str) -> list[str]:
        with self._step("list", prefix):
            found = self._store.listed(prefix)
            return sorted({name.partition("/")[0] for name in found if "/" in name})

    def temporaries(self, prefix: str) -> list[str]:
        return []

    @contextmanager
    def _step(self, operation: str, name: str) -> Iterator[None]:
        applied = self._turn(operation, name)
        yield
        applied()
