"""Layers compiled by torch against the library's own as they are, and what compiling takes.

This decides what the engine does by default on a CPU; on a GPU `on_gpu` measures the same.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import Lengths, count_tokens, make_texts
from benchmarks.ours import Ours
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    COMPILED,
    OURS,
    checkpoint,
    demand_agreement,
    difference,
    options_of,
    parser,
)
from benchmarks.timing import interleave


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--texts", type=int, default=48)
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    lengths = Lengths(median=24, longest=96) if options.quick else Lengths()
    texts = make_texts(directory, 9 if options.quick else parsed.texts, lengths, options.seed)
    plain, compiled = Ours(directory, options), Ours(directory, options, compiled=True)
    started = time.perf_counter()
    found = compiled.embed(texts, multi=False).single
    first = time.perf_counter() - started
    expected = plain.embed(texts, multi=False).single
    differences = {COMPILED: {"single": difference([expected], [found])}}
    demand_agreement(differences, options.dtype)
    programs = {
        OURS: lambda: plain.embed(texts, multi=False),
        COMPILED: lambda: compiled.embed(texts, multi=False),
    }
    comparison = Comparison(
        name="texts, single vectors",
        baseline=OURS,
        timings=interleave(programs, options.repeats),
        work={"items": len(texts), "tokens": sum(count_tokens(directory, texts))},
        differences=differences,
    )
    config = {"texts": len(texts), "first_call_seconds": first}
    return write_result("compiled_layers", options, [comparison], config)


if __name__ == "__main__":
    main()
