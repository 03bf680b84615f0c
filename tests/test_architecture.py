"""The house stays legible: import rules hold, files and functions stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for room in ("jobs", "pipeline") for path in (ROOT / room).rglob("*.py"))

_FILE_LINES = 300
_FUNCTION_LINES = 50
_PARAMETERS = 7

_PROTOCOL = [
    "folder",
    "durable",
    "log",
    "manifest",
    "fragments",
    "dataset",
    "records",
    "commit",
    "driver",
    "garbage",
    "published",
    "work",
    "job_file",
    "fingerprint",
    "shards/remembered",
    "stages/sink",
    "stages/again",
    "stages/plan",
    "stages/link",
    "stages/scan",
    "stages/keyed",
    "stages/compare",
    "stages/ray_compare",
    "nightly/signs",
    "nightly/changes",
    "nightly/compare",
    "nightly/base",
    "nightly/before",
    "nightly/aside",
    "nightly/night",
]
"""Modules that decide what is in a dataset."""
_SPARED = {"garbage": ["found.modified"] * 3}
"""Times of the store's own, by which the work of a run in progress is spared, and nothing else."""
_CLOCKS = frozenset(
    [
        "time",
        "monotonic",
        "perf_counter",
        "now",
        "utcnow",
        "today",
        "st_mtime",
        "st_ctime",
        "getmtime",
        "modified",
        "created",
        "uuid1",
        "uuid6",
        "uuid7",
        "time_ns",
    ]
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_its_decision_and_stays_small(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "no module docstring"
    assert len(source.splitlines()) <= _FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < _FUNCTION_LINES, node.name
            arguments = node.args.args + node.args.kwonlyargs
            names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(names) <= _PARAMETERS, node.name


@pytest.mark.fault("compute.clock")
@pytest.mark.parametrize("name", _PROTOCOL)
def test_the_protocol_reads_a_clock_only_to_tell_people_when(name: str) -> None:
    tree = ast.parse((ROOT / "pipeline" / f"{name}.py").read_text())
    told = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "created_at"
        for part in ast.walk(node)
    }
    read = [ast.unparse(node) for node in set(ast.walk(tree)) - told if _clock(node)]
    assert read == _SPARED.get(name, [])
    # and nobody reads what people were told
    asked = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "created_at"]
    assert asked == []


def test_whoever_compares_imports_no_torch() -> None:
    import subprocess
    import sys

    # every worker of a cluster would pay for it in seconds
    script = (
        "import sys; import pipeline.stages.ray_compare; "
        "sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)


def _clock(node: ast.AST) -> bool:
    """Whether an expression is, or imports, a clock or the time of a file."""
    if isinstance(node, ast.Attribute):
        return node.attr in _CLOCKS
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any(alias.name in _CLOCKS for alias in node.names)
    return False


def test_reading_a_dataset_imports_neither_torch_nor_ray() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from pipeline import open_dataset; import jobs.cli; "
        "bad = {'torch', 'ray', 'transformers', 'PIL'} & set(sys.modules); sys.exit(str(bad) if "
        "bad else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)
