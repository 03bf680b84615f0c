"""Single vectors of texts against sentence-transformers on the merged decoder.

It sorts all texts of a call by length and pads batches of equal count, so what it loses to padding
shrinks with the number of texts. Its default batch is 32; the best of a few others is found in the
same turns, and only afterwards: no tuning run is thrown away. Ours runs as it is and with
`compute.compile: true`, but for --quick, which needs no compiler on the machine; what compiling
takes is not timed here, `compiled_layers` says it.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import Lengths, count_tokens, make_texts
from benchmarks.ours import Ours
from benchmarks.peers.merged_decoder import write_merged
from benchmarks.peers.sentence_transformer import BATCHES, DEFAULT_BATCH, encode, load
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    ADAPTER,
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
    made.add_argument("--texts", type=int, default=128)
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    lengths = Lengths(median=24, longest=96) if options.quick else Lengths()
    texts = make_texts(directory, 70 if options.quick else parsed.texts, lengths, options.seed)
    ours = Ours(directory, options)
    peer = load(write_merged(directory, ADAPTER, options.torch_dtype), options.torch_dtype)
    batches = (DEFAULT_BATCH,) if options.quick else BATCHES

    peers: dict[str, Callable[[], NDArray[np.float32]]] = {
        _name(batch): partial(encode, peer, texts, batch) for batch in batches
    }
    if not options.quick:
        compiled = Ours(directory, options, compiled=True)
        peers[COMPILED] = lambda: compiled.embed(texts, multi=False).single
    found = list(ours.embed(texts, multi=False).single)
    differences = {
        name: {"single": difference(found, list(program()))} for name, program in peers.items()
    }
    demand_agreement(differences, options.dtype)
    programs = {OURS: lambda: ours.embed(texts, multi=False).single, **peers}
    timings = interleave(programs, options.repeats)
    sizes = count_tokens(directory, texts)
    comparison = Comparison(
        name="texts, single vectors",
        baseline=OURS,
        timings=timings,
        work={"items": len(texts), "tokens": sum(sizes)}
        | {f"padded_tokens_{batch}": _padded(sizes, batch) for batch in batches},
        differences=differences,
    )
    best = min(batches, key=lambda b: statistics.median(t.cpu for t in timings[_name(b)]))
    config = {"texts": len(texts), "lengths": vars(lengths), "best_batch": best}
    return write_result("against_sentence_transformers", options, [comparison], config)


def _name(batch: int) -> str:
    default = ", its default" if batch == DEFAULT_BATCH else ""
    return f"sentence-transformers, batch {batch}{default}"


def _padded(sizes: Sequence[int], batch: int) -> int:
    """Tokens of length-sorted batches, each padded to its longest."""
    ordered = sorted(sizes, reverse=True)
    chunks = (ordered[start : start + batch] for start in range(0, len(ordered), batch))
    return sum(len(chunk) * chunk[0] for chunk in chunks)


if __name__ == "__main__":
    main()
