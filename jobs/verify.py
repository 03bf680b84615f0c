"""`nightjar verify`: every file of a snapshot, read, held against its sha256, and counted.

Where the files are those that were committed, every link is followed to the row whose vectors it
has: that row must be there, and be of the same content.
"""

from pipeline.dataset import Dataset
from pipeline.errors import OutputError, RunError


def run(dataset: Dataset) -> None:
    """The command.

    Raises:
        RunError: files are damaged or gone, or links lead astray, and it names them; or they are
            not what was counted.
    """
    files = dataset.files
    damaged: list[str] = []
    rows = 0
    for file in files:
        try:
            rows += dataset.read_fragment(file).num_rows
        except OutputError as error:
            damaged.append(str(error))
    damaged = damaged or dataset.astray()
    if damaged:
        listed = "".join(f"\n  {sentence}" for sentence in damaged)
        raise RunError(
            f"{len(damaged)} of the {len(files)} files of version {dataset.version} cannot be "
            "trusted; put them back from a copy, or move away those that are damaged: "
            f"`nightjar retry {dataset.uri}` embeds what is gone or cut again:{listed}"
        )
    held, aside, entry = dataset.count(), dataset.count_quarantined(), dataset.entry
    written = sum(file.rows for file in files)
    if (held, aside, rows) != (entry.rows, entry.quarantined, written):
        raise RunError(
            f"version {dataset.version} was committed as {entry.rows:,} embeddings and "
            f"{entry.quarantined:,} items set aside, its manifest names {held:,} and {aside:,} in "
            f"files of {written:,} rows, and they hold {rows:,}; embed again to another output.uri"
        )
    size = sum(file.size for file in files)
    print(
        f"version {dataset.version} is whole: {len(files)} files, {size / 1e6:,.3f} MB, "
        f"{dataset.count():,} embeddings, every sha256 as committed, every link leads to its "
        "content"
    )
