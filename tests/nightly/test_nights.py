"""Whatever happens to a corpus by day, the snapshot equals it after the night, for the price of
what was never embedded before."""

import contextlib
import hashlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.cli import main
from pipeline.dataset import open_dataset
from pipeline.records import Records
from pipeline.stages.embed import Embed
from tests.jobs import OPEN_GATE

Row = dict[str, Any]

_TEXTS = st.sampled_from([f"the owl hunts in field {n}" for n in range(30)])
_LENGTHS = (64, 96)
"""Of what a text is cut to: each makes vectors in another way."""


def _hash(text: str) -> bytes:
    """As README says: of the modality and the content."""
    return hashlib.sha256(b"text\0" + text.encode()).digest()


class Killed(BaseException):
    """The process is gone."""


class Nights(RuleBasedStateMachine):
    """A corpus as a dict of shards, what is done to it, and nights."""

    checkpoint: Path

    @initialize(texts=st.lists(_TEXTS, min_size=2, max_size=5))
    def begin(self, texts: list[str]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="nightjar-nights-"))
        (self.root / "source").mkdir()
        self.shards: dict[str, list[Row]] = {}
        self.ids = 0
        self.spell: type = int
        self.length = _LENGTHS[0]
        # contents that were embedded, each with the length that is part of the model
        self.there: set[tuple[int, bytes]] = set()
        self.perhaps: set[tuple[int, bytes]] = set()
        self.last: set[tuple[int, bytes]] = set()
        self.new: set[tuple[int, bytes]] = set()
        self.add_shard([(text, "a") for text in texts])
        self.night(None)

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    # by day

    @rule(rows=st.lists(st.tuples(_TEXTS, st.sampled_from("ab")), min_size=1, max_size=4))
    def add_shard(self, rows: list[tuple[str, str]]) -> None:
        name = f"{self.ids:04}"
        self._write(name, [self._row(text, title) for text, title in rows])

    @rule(data=st.data(), text=_TEXTS)
    def add_row(self, data: st.DataObject, text: str) -> None:
        name = self._any(data)
        self._write(name, [*self.shards[name], self._row(text, "a")])

    @rule(data=st.data(), text=_TEXTS)
    def edit_text(self, data: st.DataObject, text: str) -> None:
        self._edit(data, "body", text)

    @rule(data=st.data(), title=st.sampled_from("abc"))
    def edit_title(self, data: st.DataObject, title: str) -> None:
        self._edit(data, "title", title)

    @rule(data=st.data())
    def delete_row(self, data: st.DataObject) -> None:
        name = self._any(data)
        if sum(map(len, self.shards.values())) > 1:
            at = data.draw(st.integers(0, len(self.shards[name]) - 1))
            self._write(name, self.shards[name][:at] + self.shards[name][at + 1 :])

    @rule(data=st.data())
    def copy_content(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.shards[self._any(data)]))
        name = self._any(data)
        self._write(name, [*self.shards[name], self._row(row["body"], "copy")])

    @rule(data=st.data())
    def rewrite_shard(self, data: st.DataObject) -> None:
        name = self._any(data)
        self._write(name, data.draw(st.permutations(self.shards[name])))

    @rule(data=st.data())
    def rename_shard(self, data: st.DataObject) -> None:
        rows = self._take(self._any(data))
        self._write(f"renamed-{self.ids:04}-{len(rows)}", rows)
        self.ids += 1

    @rule(data=st.data())
    def split_shard(self, data: st.DataObject) -> None:
        rows = self._take(self._any(data))
        at = data.draw(st.integers(0, len(rows)))
        self.ids += 1
        self._write(f"split-{self.ids:04}-a", rows[:at])
        self._write(f"split-{self.ids:04}-b", rows[at:])

    @rule(data=st.data())
    @precondition(lambda self: len(self.shards) > 1)
    def merge_shards(self, data: st.DataObject) -> None:
        one, other = data.draw(st.permutations(sorted(self.shards)))[:2]
        rows = self._take(one) + self._take(other)
        self.ids += 1
        self._write(f"merged-{self.ids:04}", rows)

    @rule()
    def spell_ids_another_way(self) -> None:
        self.spell = str if self.spell is int else int
        for name in sorted(self.shards):
            self._write(name, self.shards[name])

    @rule()
    def change_the_model(self) -> None:
        self.length = _LENGTHS[1 - _LENGTHS.index(self.length)]

    @rule()
    def collect_garbage(self) -> None:
        self._nightjar("gc", str(self.root / "out"), "--keep", "1", "--delete")
        # what the snapshot has no row of may be gone, and may be embedded again
        self.perhaps |= self.there
        self.there = set(self.last)

    # by night: as often as some of the above together

    @rule()
    def night_in_peace(self) -> None:
        self.night(None)

    @rule(killed=st.integers(0, 2))
    def night_cut_off(self, killed: int) -> None:
        self.night(killed)

    @rule(killed=st.integers(0, 1))
    def night_cut_off_and_gone_on_with(self, killed: int) -> None:
        self.night(killed)
        self.night(None)

    def night(self, killed: int | None) -> None:
        wanted = {(self.length, _hash(row["body"])) for row in self._rows()}
        # it may be done before it is to die
        if self._run(killed):
            self._demand_equal()
            assert wanted <= self.there | self.perhaps
            self.there |= wanted
            self.last = wanted
        assert self.new <= wanted, "nothing is embedded that is not wanted"
        self.new = set()

    def _run(self, killed: int | None) -> bool:
        """Whether a run ended; it dies when it is about to record so many units more."""
        spec = {
            "name": "nights",
            "model": {"path": str(self.checkpoint), "max_length": self.length},
            "source": {
                "uri": str(self.root / "source"),
                "format": "parquet",
                "id": "doc",
                "text": "body",
                "task": "retrieval.passage",
                "keep": ["title"],
            },
            "output": {"uri": str(self.root / "out"), "single": {"dim": 16}},
            "nightly": {"gate": OPEN_GATE},
            "compute": {"unit_rows": 2},
        }
        (self.root / "spec.yaml").write_text(yaml.safe_dump(spec))
        left = [killed]
        record, embed = Records.record, Embed.__call__
        unit: list[tuple[int, bytes]] = []

        def noted(stage: Embed, items: pa.Table, adapter: str) -> pa.Table:
            unit[:] = [(self.length, content) for content in items["source_hash"].to_pylist()]
            return embed(stage, items, adapter)

        def dying(records: Records, receipt: Any, revision: int) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] = left[0] and left[0] - 1
            if receipt.data is not None:
                assert len(set(unit)) == len(unit), "no content is embedded twice in a unit"
                assert self.there.isdisjoint(unit), "no content is embedded twice"
                self.there.update(unit)
                self.new.update(unit)
            return record(records, receipt, revision)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Records, "record", dying)
            patch.setattr(Embed, "__call__", noted)
            try:
                self._nightjar("nightly", str(self.root / "spec.yaml"), "--address", "none")
            except Killed:
                return False
        return True

    def _nightjar(self, *arguments: str) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(arguments)
        assert code == 0, said.getvalue()[-2000:]

    def _demand_equal(self) -> None:
        dataset = open_dataset(str(self.root / "out"))
        rows = dataset.to_table(["id", "title", "source_hash", "n_tokens", "embedding"]).to_pylist()
        found = sorted((str(type(r["id"])), str(r["id"]), r["title"]) for r in rows)
        assert found == sorted(
            (str(self.spell), str(row["doc"]), row["title"]) for row in self._rows()
        )
        by_id = {str(row["id"]): row for row in rows}
        by_body: dict[str, Any] = {}
        for row in self._rows():
            vector = by_id[str(row["doc"])]["embedding"]
            assert by_body.setdefault(row["body"], vector) == vector, "of one content is one vector"
        assert len({tuple(vector) for vector in by_body.values()}) == len(by_body)

    def _rows(self) -> list[Row]:
        return [row for rows in self.shards.values() for row in rows]

    def _row(self, text: str, title: str) -> Row:
        self.ids += 1
        return {"doc": self.ids, "body": text, "title": title}

    def _any(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.shards)))

    def _edit(self, data: st.DataObject, column: str, value: str) -> None:
        name = self._any(data)
        at = data.draw(st.integers(0, len(self.shards[name]) - 1))
        rows = [dict(row) for row in self.shards[name]]
        rows[at][column] = value
        self._write(name, rows)

    def _take(self, name: str) -> list[Row]:
        (self.root / "source" / f"{name}.parquet").unlink()
        return self.shards.pop(name)

    def _write(self, name: str, rows: list[Row]) -> None:
        path = self.root / "source" / f"{name}.parquet"
        if not rows:
            path.unlink(missing_ok=True)
            self.shards.pop(name, None)
            return
        self.shards[name] = list(rows)
        ids = [self.spell(row["doc"]) for row in rows]
        own = {name: [row[name] for row in rows] for name in ("body", "title")}
        # as another object: the same bytes in the same moment would be the same shard
        temporary = path.with_suffix(".tmp")
        pq.write_table(pa.table({"doc": ids} | own), temporary, row_group_size=2)
        temporary.rename(path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_every_night_the_snapshot_equals_the_corpus(tiny_checkpoint: Path) -> None:
    machine = type("TestedNights", (Nights,), {"checkpoint": tiny_checkpoint})
    few = settings(
        max_examples=40,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=few)
