"""Writes the quickstart corpus: Parquet shards, one tar shard and a folder of page images.

    docs/part-0.parquet ...   rows of text; row groups of 500, every shard with all three adapters
    samples/part-0.tar        webdataset samples: a json for each, with a txt, a jpg or both
    pages/<layout>/*.png      page images
    queries.jsonl             questions that are no rows, and with
    qrels/test.tsv            the rows that answer them, as BEIR lays them out
    CORPUS.json               written last: what is here, and for which Python it was made

It is made in a folder beside the wanted one and renamed, so a reader sees all of it or nothing. The
bytes depend only on the Python installation and the versions of Pillow and pyarrow. Takes about 5
seconds on one core; a second call finds CORPUS.json and returns at once.
"""

import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.pages import Page, render_pages
from pipeline.corpus.passages import QUOTAS, TEST_QUERIES, Passage, TestQuery, select
from pipeline.corpus.stdlib import read_library, stdlib_root

FORMAT = 2
"""Raised whenever the same installation would give other bytes."""

DOCUMENT_SHARDS = 4
ROW_GROUP_ROWS = 500
TEXT_SAMPLES = 54
"""Samples of the tar shard that have a text."""

IMAGE_SAMPLES = 12
"""Samples of the tar shard that have an image."""

BOTH_SAMPLES = 6
"""Of the samples with an image, those that have a text too."""

FOLDER_PAGES = 40
MANIFEST = "CORPUS.json"
QUERIES, QRELS = "queries.jsonl", "qrels/test.tsv"
OURS = frozenset({"docs", "samples", "pages", "qrels", QUERIES, MANIFEST})

SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in Passage.__dataclass_fields__]
)


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """What a corpus holds."""

    documents: int
    """Rows in the Parquet shards."""
    samples: int
    """Samples in the tar shard."""
    pages: int
    """Images in the folder."""
    queries: int
    """Questions to be asked of it."""
    shards: tuple[str, ...]
    """Paths of the Parquet and tar shards, relative to the corpus."""

    @property
    def rows(self) -> int:
        """Everything that can be embedded."""
        return self.documents + self.samples + self.pages


def build_corpus(directory: Path) -> CorpusSummary:
    """Makes the corpus in `directory`, unless this installation's corpus is there already.

    A corpus of another Python, Pillow or pyarrow is replaced.

    Raises:
        FileExistsError: the directory holds other files.
        RuntimeError: the installation has too few library sources, or Pillow has no FreeType.
    """
    directory = directory.absolute()
    summary = _summary_of(directory)
    if summary is not None:
        return summary
    _refuse_foreign_files(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        made = Path(scratch, "corpus")
        summary = _write_corpus(made)
        try:
            if directory.exists() and _summary_of(directory) is None:
                directory.rename(Path(scratch, "replaced"))
            made.rename(directory)
        except OSError:
            if _summary_of(directory) != summary:
                raise  # otherwise another process has made the same corpus meanwhile
    return summary


def _identity() -> dict[str, object]:
    """Everything that decides the bytes."""
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
    }


def _summary_of(directory: Path) -> CorpusSummary | None:
    """The summary of a complete corpus of this installation; None for anything else."""
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text("utf-8"))
        sizes: dict[str, int] = manifest["files"]
        counts: dict[str, int] = manifest["counts"]
        if manifest["identity"] != _identity() or sizes != _sizes(directory, sizes):
            return None
        return CorpusSummary(shards=tuple(manifest["shards"]), **counts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sizes(directory: Path, files: Iterable[str]) -> dict[str, int]:
    return {name: (directory / name).stat().st_size for name in sorted(files)}


def _refuse_foreign_files(directory: Path) -> None:
    if directory.exists():
        foreign = sorted({entry.name for entry in directory.iterdir()} - OURS)
        if foreign:
            raise FileExistsError(f"{directory}: holds {foreign[0]!r}, which is not of the corpus")


def _write_corpus(directory: Path) -> CorpusSummary:
    library = read_library(stdlib_root()).public
    chosen = select(library, TEXT_SAMPLES)
    pages = list(render_pages(library, FOLDER_PAGES + IMAGE_SAMPLES))
    wanted = sum(QUOTAS.values()), TEXT_SAMPLES, FOLDER_PAGES + IMAGE_SAMPLES, TEST_QUERIES
    there = len(chosen.documents), len(chosen.samples), len(pages), len(chosen.queries)
    if there != wanted:
        raise RuntimeError(
            f"{stdlib_root()}: too few library sources for the quickstart corpus; on Debian and "
            "Ubuntu install the package libpython3-stdlib"
        )
    shards = _write_documents(directory, chosen.documents)
    shards.append(_write_samples(directory, chosen.samples, pages[FOLDER_PAGES:]))
    _write_pages(directory, pages[:FOLDER_PAGES])
    _write_queries(directory, chosen.queries)
    counts = {
        "documents": len(chosen.documents),
        "samples": TEXT_SAMPLES + IMAGE_SAMPLES - BOTH_SAMPLES,
        "pages": FOLDER_PAGES,
        "queries": len(chosen.queries),
    }
    files = [
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    ]
    manifest = {"identity": _identity(), "counts": counts, "shards": shards}
    manifest["files"] = _sizes(directory, files)
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return CorpusSummary(shards=tuple(shards), **counts)


def _write_documents(directory: Path, passages: Sequence[Passage]) -> list[str]:
    (directory / "docs").mkdir(parents=True)
    size = -(-len(passages) // DOCUMENT_SHARDS)
    names = [f"docs/part-{number}.parquet" for number in range(DOCUMENT_SHARDS)]
    for number, name in enumerate(names):
        part = passages[number * size : (number + 1) * size]
        table = pa.Table.from_pylist([asdict(passage) for passage in part], schema=SCHEMA)
        pq.write_table(table, directory / name, row_group_size=ROW_GROUP_ROWS, compression="zstd")
    return names


def _write_samples(directory: Path, passages: Sequence[Passage], pages: Sequence[Page]) -> str:
    """First texts, then texts with an image, then images alone."""
    name = "samples/part-0.tar"
    (directory / "samples").mkdir()
    alone = len(passages) - BOTH_SAMPLES
    texts = [*passages, *[None] * (len(pages) - BOTH_SAMPLES)]
    images = [*[None] * alone, *pages]
    with tarfile.open(directory / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (text, page) in enumerate(zip(texts, images, strict=True)):
            for extension, content in _sample(text, page):
                header = tarfile.TarInfo(f"{number:06d}.{extension}")
                header.size, header.mode = len(content), 0o644
                tar.addfile(header, io.BytesIO(content))
    return name


def _sample(text: Passage | None, page: Page | None) -> Iterator[tuple[str, bytes]]:
    """Extensions and contents of one sample."""
    if page is not None:
        buffer = io.BytesIO()
        page.image.save(buffer, "JPEG", quality=90)
        yield "jpg", buffer.getvalue()
    source = text or page
    if source is not None:
        fields = {"title": source.title, "module": source.module}
        yield "json", json.dumps(fields, sort_keys=True).encode()
    if text is not None:
        yield "txt", text.text.encode()


def _write_pages(directory: Path, pages: Iterable[Page]) -> None:
    for page in pages:
        folder = directory / "pages" / page.layout
        folder.mkdir(parents=True, exist_ok=True)
        page.image.save(folder / f"{page.name}.png", "PNG")


def _write_queries(directory: Path, queries: Iterable[TestQuery]) -> None:
    asked, judged = [], ["query-id\tcorpus-id\tscore"]
    for query in queries:
        asked.append(json.dumps({"_id": query.id, "text": query.text}))
        judged += [f"{query.id}\t{name}\t{grade}" for name, grade in query.grades.items()]
    (directory / QRELS).parent.mkdir()
    for name, lines in ((QUERIES, asked), (QRELS, judged)):
        (directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
