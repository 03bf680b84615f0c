"""`nightjar verify`: every file of a snapshot, read and held against its sha256."""

from pipeline.dataset import open_dataset
from pipeline.errors import OutputError, RunError


def run(uri: str, version: int | None) -> None:
    """The command.

    Raises:
        OutputError: no dataset is there, or no such version.
        RunError: files are damaged or gone; names them.
    """
    dataset = open_dataset(uri, version)
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
