"""Parquet to vectors on Ray, end to end: the obvious Ray Data program against `nightjar embed`.

Both connect to the same running cluster, read the same files, hold one actor with the same threads
and write their files to the same disk. CPU seconds are those of the whole cluster. The obvious
program commits nothing, sets no bad row aside and checks no checkpoint: all of that is in our time.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.corpus import Lengths, count_tokens, make_texts, write_rows
from benchmarks.jobs_of_ours import (
    differences,
    embed_files,
    one_actor,
    read_ours,
    read_parquet,
)
from benchmarks.peers import ray_program
from benchmarks.peers.merged_decoder import write_merged
from benchmarks.ray_head import Head, ray_head
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    ADAPTER,
    OURS,
    Options,
    checkpoint,
    demand_agreement,
    options_of,
    parser,
    scratch,
)
from benchmarks.timing import TreeClock, interleave

PADDED = "Ray Data, AutoModel, batches of 32"
SORTED = "Ray Data, sentence-transformers"
ACTORS = {PADDED: ray_program.Padded, SORTED: ray_program.Sorted}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the programs run, and what each of them wrote last."""

    options: Options
    checkpoint: Path
    source: Path
    scratch: Path
    head: Head
    written: dict[str, Path] = field(default_factory=dict)

    def ours(self, *, multi: bool) -> None:
        """`nightjar embed`."""
        output = self._new(OURS)
        embed_files(
            self.checkpoint,
            self.source,
            output,
            multi=multi,
            options=self.options,
            address=self.head.address,
            pools=one_actor(self.options),
        )

    def theirs(self, name: str, *, multi: bool) -> None:
        """The obvious program with one of its actors."""
        output = self._new(name)
        merged = write_merged(self.checkpoint, ADAPTER, self.options.torch_dtype)
        arguments = (str(merged), self.options.dtype, self.options.threads, multi)
        ray_program.run(self.head.address, ACTORS[name], arguments, self.source, output)

    def _new(self, name: str) -> Path:
        self.written[name] = Path(tempfile.mkdtemp(dir=self.scratch)) / "output"
        return self.written[name]


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=256)
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    lengths = Lengths(median=24, longest=96) if options.quick else Lengths()
    texts = make_texts(directory, 40 if options.quick else parsed.rows, lengths, options.seed)
    work = {"rows": len(texts), "tokens": sum(count_tokens(directory, texts))}
    write_merged(directory, ADAPTER, options.torch_dtype)
    # one CPU more than the actor has, as a machine that also reads and writes
    with scratch(options) as folder, ray_head(options.threads + 1) as head:
        stage = Stage(
            options=options,
            checkpoint=directory,
            source=folder / "source",
            scratch=folder,
            head=head,
        )
        write_rows(stage.source, texts, files=2)
        comparisons = [_compare(stage, multi=True, names=[PADDED], work=work)]
        if not options.quick:
            comparisons.append(_compare(stage, multi=False, names=[PADDED, SORTED], work=work))
    config = {"rows": len(texts), "lengths": vars(lengths), "cluster_cpus": options.threads + 1}
    return write_result("against_ray_program", options, comparisons, config)


def _compare(
    stage: Stage, *, multi: bool, names: Sequence[str], work: dict[str, float]
) -> Comparison:
    programs: dict[str, Callable[[], None]] = {OURS: partial(stage.ours, multi=multi)}
    programs |= {name: partial(stage.theirs, name, multi=multi) for name in names}
    with TreeClock([os.getpid(), stage.head.process]) as clock:
        timings = interleave(programs, stage.options.repeats, clock)
    found = read_ours(stage.written[OURS])
    agreed = {name: differences(found, read_parquet(stage.written[name])) for name in names}
    demand_agreement(agreed, stage.options.dtype)
    return Comparison(
        name="single and multi-vectors" if multi else "single vectors",
        baseline=OURS,
        timings=timings,
        work=work,
        differences=agreed,
    )


if __name__ == "__main__":
    main()
