"""Package: the folder that is sent to a cluster, and becomes the working directory of a job.

It holds the spec, and the code of this installation when the cluster is to run that. Nothing else
is taken along, so no file that lies about can be: a spec names secrets and never has one, and they
are resolved where they are used.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata, version
from pathlib import Path

import yaml

import pipeline
from pipeline.section import Section

SPEC = "spec.yaml"
"""The spec's name in the folder."""
_CODE = ("pipeline", "jobs")
_HEADERS = ("Metadata-Version", "Name", "Version", "Requires-Python", "Requires-Dist")


@contextmanager
def packaged(spec: Section, *, code: bool) -> Iterator[Path]:
    """A folder that can be sent, which is gone afterwards.

    Args:
        spec: with locations that hold from any working directory.
        code: whether the code is to be sent as well.
    """
    # what was not written is left out: a key that is there says more than its default
    plain = spec.model_dump(mode="json", exclude_unset=True)
    with tempfile.TemporaryDirectory(prefix="nightjar-") as temporary:
        folder = Path(temporary)
        (folder / SPEC).write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        if code:
            _add_code(folder)
        yield folder


def digest(folder: Path, command: str) -> str:
    """What tells a job from others, as 64 hex digits (sha256).

    Args:
        folder: its package.
        command: what is run in it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [command]
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        parts.append(f"{content} {path.relative_to(folder)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _add_code(folder: Path) -> None:
    root = Path(pipeline.__file__).parent.parent
    for name in _CODE:
        for source in (root / name).rglob("*.py"):
            target = folder / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    # by which the code knows its version and what it needs, whatever the cluster has installed
    about = folder / f"nightjar-{version('nightjar')}.dist-info"
    about.mkdir()
    known = metadata("nightjar")
    headers = [(n, v) for n in _HEADERS for v in known.get_all(n) or ()]
    (about / "METADATA").write_text("".join(f"{name}: {value}\n" for name, value in headers))
