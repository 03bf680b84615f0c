"""`nightjar export`: a snapshot for tools that want Parquet or Lance."""

from pipeline.dataset import open_dataset
from pipeline.export import to_lance, to_parquet


def run(uri: str, version: int | None, to: str, destination: str) -> None:
    """The command.

    Raises:
        OutputError: no such dataset or version, or the destination is not empty.
    """
    dataset = open_dataset(uri, version)
    rows = (to_parquet if to == "parquet" else to_lance)(dataset, destination)
    print(f"{rows:,} rows of version {dataset.version} written as {to} to {destination}")
