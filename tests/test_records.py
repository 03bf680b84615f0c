"""Unit records: the first counts, and one whose files are gone counts no longer."""

import dataclasses
import hashlib
import logging
from pathlib import Path

import pytest

from pipeline.folder import Folder
from pipeline.records import Records
from pipeline.sealed import seal, unseal
from pipeline.work import Receipt, WrittenFile

MADE_BY = hashlib.sha256(b"made by").hexdigest()
_WORK = f"work/{MADE_BY[:8]}"


def _receipt(folder: Folder, unit: str, attempt: str = "a") -> Receipt:
    """A receipt whose files are there."""
    files = [
        WrittenFile(path=f"{kind}/{MADE_BY[:8]}/{unit}-{attempt}.arrow", sha256="0", size=4, rows=1)
        for kind in ("data", "quarantine")
    ]
    for file in files:
        folder.put(file.path, b"data")
    return Receipt(
        unit=unit,
        adapter="code",
        rows=2,
        items=2,
        embedded={"text": 1},
        quarantined={"oom": 1},
        tokens=3,
        data=files[0],
        quarantine=files[1],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "dataset"))


def test_a_receipt_survives_its_json(folder: Folder) -> None:
    receipt = _receipt(folder, "u")
    assert Receipt.from_json(receipt.to_json()) == receipt
    alone = dataclasses.replace(receipt, quarantine=None)
    assert Receipt.from_json(alone.to_json()) == alone
    assert alone.files == (alone.data,)


def test_no_changed_byte_of_a_receipt_is_taken_for_one(folder: Folder) -> None:
    text = _receipt(folder, "u").to_json().encode()
    for at in range(len(text)):
        damaged = bytes([*text[:at], text[at] ^ 1, *text[at + 1 :]])
        with pytest.raises(ValueError, match=r"."):
            Receipt.from_json(damaged)


def test_of_two_attempts_the_first_record_counts_for_both(folder: Folder) -> None:
    first, second = _receipt(folder, "u", "a"), _receipt(folder, "u", "b")
    records = Records(folder, MADE_BY)
    assert records.record(first, 0) == first
    assert records.record(second, 0) == first
    assert folder.names(_WORK) == ["u.0.json"]
    assert Records(folder, MADE_BY).standing(["u"], ()).receipts == {"u": first}


def test_units_without_a_record_are_to_be_done(folder: Folder) -> None:
    Records(folder, MADE_BY).record(_receipt(folder, "done"), 0)
    standing = Records(folder, MADE_BY).standing(["done", "open"], ())
    assert standing.receipts.keys() == {"done"}
    assert standing.missing == ["open"]
    assert standing.revisions == {"done": 1, "open": 0}
    elsewhere = Records(folder, hashlib.sha256(b"another model").hexdigest())
    assert elsewhere.standing(["done"], ()).missing == ["done"]


@pytest.mark.parametrize("fate", ["deleted", "cut", "condemned"])
@pytest.mark.parametrize("kind", ["data", "quarantine"])
def test_a_unit_whose_files_are_gone_is_done_again(folder: Folder, kind: str, fate: str) -> None:
    receipt = _receipt(folder, "u")
    Records(folder, MADE_BY).record(receipt, 0)
    path = f"{kind}/{MADE_BY[:8]}/u-a.arrow"
    if fate == "deleted":
        folder.delete(path)
    elif fate == "cut":
        folder.put(path, b"")
    condemned = {path} if fate == "condemned" else set()
    records = Records(folder, MADE_BY)
    standing = records.standing(["u"], condemned)
    assert (standing.missing, standing.revisions) == (["u"], {"u": 1})
    again = _receipt(folder, "u", "b")
    assert records.record(again, 1) == again
    assert records.standing(["u"], condemned).receipts == {"u": again}


def test_a_damaged_record_is_told_and_its_unit_done_again(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.put(f"{_WORK}/u.0.json", b"{}")
    with caplog.at_level(logging.WARNING):
        assert Records(folder, MADE_BY).standing(["u"], ()).revisions == {"u": 1}
    assert "u.0.json is passed over: its sum is not that of its content" in caplog.text


def test_of_several_revisions_the_latest_counts(folder: Folder) -> None:
    records = Records(folder, MADE_BY)
    older, latest = _receipt(folder, "u", "a"), _receipt(folder, "u", "b")
    # as text, 10 would come before 9
    records.record(older, 9)
    records.record(latest, 10)
    standing = Records(folder, MADE_BY).standing(["u"], ())
    assert (standing.receipts, standing.revisions) == ({"u": latest}, {"u": 11})
    condemned = {file.path for file in latest.files}
    standing = Records(folder, MADE_BY).standing(["u"], condemned)
    assert (standing.receipts, standing.revisions) == ({"u": older}, {"u": 11})


def test_names_that_are_of_no_record_are_passed_over(folder: Folder) -> None:
    receipt = _receipt(folder, "u")
    Records(folder, MADE_BY).record(receipt, 0)
    for name in ("u.json", "u.x.json", "u", "other.7.json"):
        folder.put(f"{_WORK}/{name}", b"{}")
    standing = Records(folder, MADE_BY).standing(["u"], ())
    assert (standing.receipts, standing.revisions) == ({"u": receipt}, {"u": 1})


def test_each_record_is_read_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    Records(folder, MADE_BY).record(_receipt(folder, "u"), 0)
    records, reads = Records(folder, MADE_BY), []
    original = Folder.get
    monkeypatch.setattr(Folder, "get", lambda s, name: (reads.append(name), original(s, name))[1])
    for _ in range(3):
        records.standing(["u"], ())
    assert reads == [f"{_WORK}/u.0.json"]


@pytest.mark.parametrize(
    "path",
    ["data/../../x.arrow", "../data/x.arrow", "/data/x.arrow", "data/./x.arrow", "data//x.arrow",
     "data/x.arrow\n", "data/.x.arrow", "quarantine/x.arrow", "data", "data/", "s3://b/data/x", 7,
     "data/x/../y.arrow", "data\\x.arrow", "data/%2e%2e/x.arrow"],
)  # fmt: skip
def test_a_record_that_names_a_file_elsewhere_is_none(folder: Folder, path: object) -> None:
    plain = unseal(_receipt(folder, "u").to_json())
    plain["data"]["path"] = path
    with pytest.raises(ValueError, match=r"is not a plain path below data/|it is no receipt"):
        Receipt.from_json(seal(plain))
    folder.put(f"{_WORK}/u.0.json", seal(plain).encode())
    assert Records(folder, MADE_BY).standing(["u"], ()).missing == ["u"]
