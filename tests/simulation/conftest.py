"""One thread for each process: pools that read or delete many objects work inline."""

from collections.abc import Callable, Iterable, Iterator

import pytest

from pipeline import garbage, log, records


class _Inline:
    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> "_Inline":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def map(self, call: Callable[[object], object], items: Iterable[object]) -> Iterator[object]:
        return map(call, items)


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (garbage, log, records):
        monkeypatch.setattr(module, "ThreadPoolExecutor", _Inline)
