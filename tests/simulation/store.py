"""A store in memory whose every call is a step of the scheduler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.folder import Folder

Turn = Callable[[str, str], Callable[[], None]]
"""Asks for a turn for (operation, name); returns what is to be called when it has been applied."""


class Store:
    """Objects by name; whoever holds it sees the present state, as from a strongly consistent
    store."""

    def __init__(self, *, conditional: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.conditional = conditional
        """Whether create refuses a name that is there: a store that ignores the condition does
        not."""


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

    def create(self, name: str, data: bytes) -> None:
        with self._step("create", name):
            if self._store.conditional and name in self._store.objects:
                raise FileExistsError(name)
            self._store.objects[name] = data

    def delete(self, name: str) -> None:
        with self._step("delete", name):
            self._store.objects.pop(name, None)

    def sizes(self, prefix: str) -> dict[str, int]:
        with self._step("list", prefix):
            below = {
                n.removeprefix(f"{prefix}/"): n
                for n in self._store.objects
                if n.startswith(f"{prefix}/")
            }
            return {
                name: len(self._store.objects[path])
                for name, path in below.items()
                if "/" not in name
            }

    def folders(self, prefix: str) -> list[str]:
        with self._step("list", prefix):
            below = (
                n.removeprefix(f"{prefix}/")
                for n in self._store.objects
                if n.startswith(f"{prefix}/")
            )
            return sorted({name.partition("/")[0] for name in below if "/" in name})

    @contextmanager
    def _step(self, operation: str, name: str) -> Iterator[None]:
        applied = self._turn(operation, name)
        yield
        applied()
