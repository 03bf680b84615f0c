"""Layers compiled by torch against the library's own as they are, and what compiling takes.

This decides what the engine does by default on a CPU; on a GPU `on_gpu` measures the same.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import Lengths, count_tokens, make_texts
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    ADAPTER,
    TASK,
    checkpoint,
    demand_agreement,
    difference,
    options_of,
    parser,
)
from benchmarks.timing import interleave
from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.embedder import Embedder
from pipeline.model.engine import Engine
from pipeline.model.processor import Processor

PLAIN, COMPILED = "as they are", "compiled"
_BUDGET = 2048


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--texts", type=int, default=48)
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    lengths = Lengths(median=24, longest=96) if options.quick else Lengths()
    texts = make_texts(directory, 9 if options.quick else parsed.texts, lengths, options.seed)
    opened = open_checkpoint(directory)

    def door(*, compiled: bool) -> Embedder:
        engine = Engine(
            opened,
            ADAPTER,
            device="cpu",
            dtype=options.dtype,
            token_budget=_BUDGET,
            compiled=compiled,
        )
        return Embedder(Processor(opened), engine, TASK)

    plain, compiled = door(compiled=False), door(compiled=True)
    started = time.perf_counter()
    found = compiled.embed(texts)
    first = time.perf_counter() - started
    differences = {COMPILED: {"single": difference([plain.embed(texts).single], [found.single])}}
    demand_agreement(differences, options.dtype)
    programs = {
        PLAIN: lambda: plain.embed(texts),
        COMPILED: lambda: compiled.embed(texts),
    }
    comparison = Comparison(
        name="texts, single vectors",
        baseline=PLAIN,
        timings=interleave(programs, options.repeats),
        work={"items": len(texts), "tokens": sum(count_tokens(directory, texts))},
        differences=differences,
    )
    config = {"texts": len(texts), "token_budget": _BUDGET, "first_call_seconds": first}
    return write_result("compiled_layers", options, [comparison], config)


if __name__ == "__main__":
    main()
