"""`nightjar export`: a snapshot for tools that want Parquet or Lance."""

from pipeline.dataset import Dataset
from pipeline.export import to_lance, to_parquet


def run(dataset: Dataset, to: str, destination: str) -> None:
    """The command.

    Raises:
        OutputError: the destination is not empty, or a file is damaged.
    """
    rows = (to_parquet if to == "parquet" else to_lance)(dataset, destination)
    print(f"{rows:,} rows of version {dataset.version} written as {to} to {destination}")
