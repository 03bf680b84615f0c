"""`nightjar corpus`: the quickstart corpus, made from the Python installation."""

from pathlib import Path

from pipeline.corpus.build import build_corpus
from pipeline.errors import OutputError


def run(directory: str) -> None:
    """The command.

    Raises:
        OutputError: the directory holds something else.
    """
    try:
        summary = build_corpus(Path(directory))
    except FileExistsError as error:
        raise OutputError(str(error)) from error
    print(
        f"corpus: {summary.rows:,} rows in {directory} ({summary.documents:,} documents, "
        f"{summary.samples} tar samples, {summary.pages} page images), {summary.queries} queries"
    )
