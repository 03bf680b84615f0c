"""`nightjar verify`: every file of a snapshot, read and held against its sha256."""

from pipeline.dataset import Dataset
from pipeline.errors import OutputError, RunError


def run(dataset: Dataset) -> None:
    """The command.

    Raises:
        RunError: files are damaged or gone; names them.
    """
    files = dataset.files
    damaged: list[str] = []
    for file in files:
        try:
            dataset.read_fragment(file)
        except OutputError as error:
            damaged.append(str(error))
    if damaged:
        listed = "".join(f"\n  {sentence}" for sentence in damaged)
        raise RunError(
            f"{len(damaged)} of the {len(files)} files of version {dataset.version} cannot be "
            f"trusted; embed again to another output.uri:{listed}"
        )
    size = sum(file.size for file in files)
    print(
        f"version {dataset.version} is whole: {len(files)} files, {size / 1e6:,.3f} MB, "
        f"{dataset.count():,} embeddings, every sha256 as committed"
    )
