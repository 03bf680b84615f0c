"""Canaries: a worker that computes something else is found before what it made is handed on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CanaryDrift, OutputError, Reason, RowError
from pipeline.folder import Folder
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem
from pipeline.stages.canaries import ALL_EVERY, CANARIES, Canaries

FINGERPRINT = "f" * 64
_ITEMS = {
    name: PreparedItem(token_ids=np.array([seed], np.int32), pixels=None, truncated=False)
    for seed, name in enumerate(("one", "two", "three"))
}


class Device:
    """Makes of an item what its token says, and adds an error to some."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.wrong: Mapping[int, float] = {}

    def embed(self, items: Sequence[PreparedItem], adapter: str) -> Embeddings:
        self.asked.append(len(items))
        singles, multi = [], []
        for item in items:
            seed = int(item.token_ids[0])
            vectors = np.random.default_rng([seed, len(adapter)]).normal(size=(3, 8))
            vectors[0] += self.wrong.get(seed, 0.0)
            with np.errstate(invalid="ignore"):
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            singles.append(vectors[0].astype(np.float32))
            multi.append(vectors[1:].astype(np.float16))
        return Embeddings(
            singles={8: np.stack(singles)},
            multi=list(multi),
            n_tokens=np.ones(len(items), np.int32),
            truncated=np.zeros(len(items), np.bool_),
            faults={},
        )


def _canaries(root: Path, actor: str | None = None) -> Canaries:
    return Canaries(
        folder=Folder(str(root)),
        fingerprint=FINGERPRINT,
        items=lambda adapter: _ITEMS,
        tolerance=1e-3,
        device="a slide rule",
        actor=actor,
    )


def test_all_are_looked_at_first_and_now_and_then_and_one_after_every_unit(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    for _ in range(ALL_EVERY + 1):
        canaries.before("code", device.embed)
        canaries.after("code", 1, device.embed)
    assert device.asked == [3, *[1] * (ALL_EVERY - 1), 3, 1]


def test_those_that_are_looked_at_alone_take_turns(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    canaries.before("code", device.embed)
    device.wrong = {2: 0.5}
    canaries.after("code", 1, device.embed)
    canaries.after("code", 1, device.embed)
    with pytest.raises(CanaryDrift, match="'three'"):
        canaries.after("code", 1, device.embed)


def test_all_are_looked_at_after_a_unit_beside_which_they_are_small(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    canaries.before("code", device.embed)
    canaries.after("code", 50 * 3 - 1, device.embed)
    canaries.after("code", 50 * 3, device.embed)
    assert device.asked == [3, 1, 3]


def test_what_one_thread_has_found_does_not_let_another_pass(tmp_path: Path) -> None:
    _canaries(tmp_path).before("code", Device().embed)
    canaries, ill = _canaries(tmp_path), Device()
    ill.wrong = {2: 0.5}
    for _ in range(2):
        with pytest.raises(CanaryDrift):
            canaries.before("code", ill.embed)


def test_a_canary_that_does_not_fit_the_memory_says_nothing_of_the_device(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    canaries.before("code", device.embed)

    def cramped(items: Sequence[PreparedItem], adapter: str) -> Embeddings:
        found = device.embed(items, adapter)
        found.singles[8][0] = 0
        return replace(found, faults={0: RowError(Reason.OOM, "too large")})

    canaries.after("code", 1, cramped)
    # nor does one that has not been looked at before, and fits now
    other = _canaries(tmp_path / "other")
    other.before("code", cramped)
    other.after("code", 1, device.embed)


def test_each_adapter_has_canaries_of_its_own(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    for adapter in ("code", "retrieval", "code"):
        canaries.before(adapter, device.embed)
    assert device.asked == [3, 3]
    made = Folder(str(tmp_path)).names(f"{CANARIES}/{FINGERPRINT[:8]}")
    assert sorted(name.partition("-")[0] for name in made) == ["code", "retrieval"]


def test_a_worker_that_drifts_is_named_with_its_actor_host_and_device(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path, actor="a1b2"), Device()
    canaries.before("code", device.embed)
    device.wrong = {0: 0.5}
    with pytest.raises(
        CanaryDrift,
        match=r"single 8 vectors of the canary 'one', adapter code, are 0\..* from what they were "
        r".*actor a1b2, process \d+ on host .*, a slide rule, does not compute what others did; "
        r"nothing was committed; take it out",
    ):
        canaries.after("code", 1, device.embed)


def test_a_worker_is_held_against_what_the_first_one_made(tmp_path: Path) -> None:
    _canaries(tmp_path).before("code", Device().embed)
    well, ill = Device(), Device()
    ill.wrong = {2: 0.5}
    _canaries(tmp_path).before("code", well.embed)
    with pytest.raises(CanaryDrift, match="'three'"):
        _canaries(tmp_path, actor="c3d4").before("code", ill.embed)
    with pytest.raises(CanaryDrift, match=r"if it is right, process .* was wrong: then delete"):
        _canaries(tmp_path).before("code", ill.embed)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_worker_whose_first_vectors_are_not_finite_is_no_measure_for_others(
    tmp_path: Path, wrong: float
) -> None:
    ill = Device()
    ill.wrong = {1: wrong}
    with pytest.raises(CanaryDrift, match="are nan from what they were"):
        _canaries(tmp_path).before("code", ill.embed)
    assert not Folder(str(tmp_path)).names(f"{CANARIES}/{FINGERPRINT[:8]}")
    _canaries(tmp_path).before("code", Device().embed)


def test_a_difference_of_rounding_is_none(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    canaries.before("code", device.embed)
    device.wrong = {0: 1e-4}
    canaries.after("code", 1, device.embed)


def test_another_number_of_vectors_is_a_drift(tmp_path: Path) -> None:
    canaries, device = _canaries(tmp_path), Device()
    canaries.before("code", device.embed)

    def shorter(items: Sequence[PreparedItem], adapter: str) -> Embeddings:
        found = device.embed(items, adapter)
        return replace(found, multi=[some[:1] for some in found.multi or ()])

    with pytest.raises(CanaryDrift, match=r"multi vectors of the canary 'one'.* are inf from"):
        canaries.after("code", 1, shorter)


def test_a_damaged_store_of_canaries_is_named(tmp_path: Path) -> None:
    _canaries(tmp_path).before("code", Device().embed)
    (stored,) = (tmp_path / CANARIES / FINGERPRINT[:8]).iterdir()
    stored.write_bytes(b"no arrow")
    with pytest.raises(OutputError, match=rf"{stored.name} is damaged"):
        _canaries(tmp_path).before("code", Device().embed)
