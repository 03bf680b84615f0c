"""What the pipeline costs: `nightjar embed` against our own bare `Embedder` loop.

The loop reads the Parquet files, embeds 1,024 texts at a time and drops the vectors; it loads the
model once, as the job does. What the job does beyond it is the difference: planning, hashing,
Arrow, writing, committing and, in its second form, Ray. Short texts, because what is done for each
row weighs most there. On Ray the job has as many CPUs as the loop has threads, and the actors that
it chooses for them.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.corpus import Lengths, count_tokens, make_texts, write_rows
from benchmarks.jobs_of_ours import embed_files, read_ours
from benchmarks.ours import Ours
from benchmarks.ray_head import ray_head
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    Options,
    checkpoint,
    demand_agreement,
    difference,
    options_of,
    parser,
    scratch,
)
from benchmarks.timing import TreeClock, interleave

LOOP = "bare Embedder loop"
PROCESS, ON_RAY = "nightjar embed, no Ray", "nightjar embed, on Ray"
_CHUNK = 1024
_COMPARED = 2048
"""Rows whose vectors are compared."""
_SHORT = Lengths(median=16, sigma=0.4, shortest=4, longest=64)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=50_000)
    made.add_argument("--no-ray", action="store_true", help="leave the run on Ray out")
    made.add_argument("--no-process", action="store_true", help="leave the run without Ray out")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    rows = 64 if options.quick else parsed.rows
    texts = make_texts(directory, rows, _SHORT, options.seed)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(options))
        addresses = {} if parsed.no_process else {PROCESS: "none"}
        processes = [os.getpid()]
        if not parsed.no_ray:
            head = stack.enter_context(ray_head(options.threads))
            addresses[ON_RAY] = head.address
            processes.append(head.process)
        write_rows(folder / "source", texts, files=4)
        work = {"rows": rows, "tokens": sum(count_tokens(directory, texts))}
        clock = stack.enter_context(TreeClock(processes))
        comparison = _compare(directory, folder, options, addresses, work, clock)
    config = {"rows": rows, "lengths": vars(_SHORT), "multi": True}
    return write_result("pipeline_cost", options, [comparison], config)


def _compare(
    directory: Path,
    folder: Path,
    options: Options,
    addresses: dict[str, str],
    work: dict[str, float],
    clock: TreeClock,
) -> Comparison:
    written: dict[str, Path] = {}
    source = folder / "source"

    def job(name: str) -> None:
        written[name] = Path(tempfile.mkdtemp(dir=folder)) / "output"
        embed_files(
            directory,
            source,
            written[name],
            multi=True,
            options=options,
            address=addresses[name],
            pools={},
        )

    programs: dict[str, Callable[[], object]] = {
        LOOP: lambda: _loop(directory, source, options),
    }
    programs |= {name: partial(job, name) for name in addresses}
    # before the turns: what is imported on first use is nobody's
    bare = _loop(directory, source, options, most=_COMPARED)
    timings = interleave(programs, options.repeats, clock)
    agreed = {
        name: {"single": difference([bare], [np.stack(read_ours(output)["single"])[: len(bare)]])}
        for name, output in written.items()
    }
    demand_agreement(agreed, options.dtype)
    return Comparison(
        name="short texts, single and multi-vectors",
        baseline=LOOP,
        timings=timings,
        work=work,
        differences=agreed,
    )


def _loop(
    directory: Path, source: Path, options: Options, *, most: int | None = None
) -> NDArray[np.float32]:
    """Embed every row, or only the first ones and return their single vectors."""
    ours = Ours(directory, options)
    found: list[NDArray[np.float32]] = []
    for file in sorted(source.glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(_CHUNK, columns=["text"]):
            vectors = ours.embed(batch["text"].to_pylist(), multi=True).single
            if most is None:
                continue
            found.append(vectors)
            if sum(map(len, found)) >= most:
                return np.concatenate(found)
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)


if __name__ == "__main__":
    main()
