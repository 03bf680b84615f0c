"""The house stays legible: import rules hold, files and functions stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for room in ("jobs", "pipeline") for path in (ROOT / room).rglob("*.py"))

_FILE_LINES = 300
_FUNCTION_LINES = 50
_PARAMETERS = 7


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


def test_reading_a_dataset_imports_neither_torch_nor_ray() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from pipeline import open_dataset; import jobs.cli; "
        "bad = {'torch', 'ray', 'transformers', 'PIL'} & set(sys.modules); sys.exit(str(bad) if "
        "bad else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)
