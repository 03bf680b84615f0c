"""What all comparisons share: the options, the checkpoint, the threads, and how close is equal.

The checkpoint is random, in the official layout, made by our own writer and small enough for two
cores. Its proportions are the real model's where they decide a ratio:

- vocabulary 8192: lm_head is 512 x 8192 beside 39.1 M weights of the layers, 10.7 % more FLOPs; the
  real one is 2048 x 151936 beside 2774 M, 11.2 %. The reference computes it and we do not.
- rank 8 of hidden 512 is rank 32 of hidden 2048.
- intermediate / hidden is 5.375 as there.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.device import DTYPES
from pipeline.model.geometry import TINY, Geometry
from pipeline.model.random_checkpoint import write_random_checkpoint

CACHE = Path(__file__).parent / ".cache"
TASK, ADAPTER, PREFIX = "retrieval.passage", "retrieval", "Passage: "
OURS, COMPILED = "nightjar", "nightjar, compile: true"

MIDDLE = Geometry(
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=2,
    intermediate=2752,
    vision_hidden=320,
    vision_depth=8,
    vision_heads=4,
    vision_intermediate=856,
    full_attention_blocks=(3, 7),
    rank=8,
    alpha=8,
    min_pixels=3136,
    max_pixels=602112,
    matryoshka_dims=(128, 256, 512),
    vocabulary=8192,
)

_BOUNDS = {
    # written as float16, two nearly equal numbers may come out one step apart
    "float32": {"single": 1e-5, "multi": 5e-5, "multi_float16": 6e-4},
    # two programs that round to eight bits at different places; the reference itself is 6e-3 and
    # 5e-2 away from its own float32
    "bfloat16": {"single": 2e-2, "multi": 1.5e-1, "multi_float16": 1.5e-1},
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every script can be told."""

    threads: int
    """Of torch and of the tokenizers; for Ray, CPUs of the actor."""
    dtype: str
    """float32 or bfloat16, for every program."""
    seed: int
    """Of the checkpoint and of the inputs."""
    repeats: int
    """Turns of each program."""
    quick: bool
    """Tiny sizes: shows that the script works, and no more."""
    cache: Path = CACHE
    """Holds the checkpoint, and what the programs write while they run."""
    results: Path | None = None
    """Where the record goes; None for the folder beside the scripts."""

    @property
    def geometry(self) -> Geometry:
        """Of the checkpoint."""
        return TINY if self.quick else MIDDLE

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        return DTYPES[self.dtype]

    def spelled(self) -> str:
        """As typed, without the paths."""
        text = f"--threads {self.threads} --dtype {self.dtype} --seed {self.seed}"
        return f"{text} --repeats {self.repeats}" + (" --quick" if self.quick else "")

    def as_json(self) -> dict[str, object]:
        """Everything that decides the numbers."""
        kept = {
            key: value for key, value in asdict(self).items() if key not in ("cache", "results")
        }
        waiting = os.environ["OMP_WAIT_POLICY"]
        return kept | {
            "geometry": asdict(self.geometry),
            "task": TASK,
            "omp_wait_policy": waiting,
        }


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all scripts take; a script may add its own."""
    made = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--repeats", type=int, default=None, help="turns; 5, or 1 with --quick")
    made.add_argument("--quick", action="store_true", help="tiny sizes, numbers mean nothing")
    made.add_argument("--cache", type=Path, default=CACHE, help="folder of the checkpoint")
    made.add_argument("--results", type=Path, default=None, help="folder of the record")
    return made


def options_of(parsed: argparse.Namespace) -> Options:
    """The common options, and the threads set to them."""
    options = Options(
        threads=parsed.threads,
        dtype=parsed.dtype,
        seed=parsed.seed,
        repeats=parsed.repeats or (1 if parsed.quick else 5),
        quick=parsed.quick,
        cache=parsed.cache,
        results=parsed.results,
    )
    torch.set_num_threads(options.threads)
    # read by the tokenizers when they are first used, in this process and in Ray's workers
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    return options


def checkpoint(options: Options) -> Path:
    """The checkpoint's folder, written on first use."""
    size = "tiny" if options.quick else "middle"
    directory = options.cache / f"{size}-{options.seed}"
    if not (directory / "config.json").is_file():
        write_random_checkpoint(directory, options.geometry, seed=options.seed)
    return directory


@contextmanager
def scratch(options: Options) -> Iterator[Path]:
    """A folder beside the checkpoint for what the programs write, removed afterwards."""
    options.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.cache) as name:
        yield Path(name)


def demand_agreement(differences: Mapping[str, Mapping[str, float]], dtype: str) -> None:
    """Refuse to compare programs that compute different things.

    Raises:
        SystemExit: names the program.
    """
    for program, outputs in differences.items():
        for output, value in outputs.items():
            if not value <= _BOUNDS[dtype][output]:
                raise SystemExit(
                    f"{program}: its {output} vectors differ from ours by {value:.1e}, at most "
                    f"{_BOUNDS[dtype][output]:.0e} in {dtype}: the ratio would mean nothing"
                )


def difference(ours: Sequence[NDArray[np.float32]], theirs: Sequence[NDArray[np.float32]]) -> float:
    """The largest absolute difference between two lists of arrays of equal shapes."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(np.subtract(a, b, dtype=np.float32)).max()) for a, b in pairs)
