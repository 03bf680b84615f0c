"""`nightjar gc`: what no version to be kept needs, shown, and deleted when asked for."""

from pipeline.folder import Folder
from pipeline.garbage import Garbage, collect, find_garbage


def run(uri: str, keep: int, abandoned: bool, delete: bool) -> None:
    """The command.

    Args:
        uri: root of the dataset.
        keep: how many of the newest snapshots stay readable.
        abandoned: whether what was never committed goes too.
        delete: whether to delete; else it is only told.

    Raises:
        OutputError: nothing has been committed there, or what was is damaged.
        CommitConflict: another driver committed meanwhile; nothing was deleted.
    """
    folder = Folder(uri)
    garbage = find_garbage(folder, keep, abandoned)
    if delete:
        collect(folder, garbage)
    _tell(garbage, delete)


def _tell(garbage: Garbage, deleted: bool) -> None:
    size = sum(garbage.files.values())
    verb = "deleted" if deleted else "would delete"
    print(f"{verb} {len(garbage.files):,} files, {size / 1e6:,.3f} MB")
    if garbage.expired:
        print(f"  no longer readable: {_listed('version', garbage.expired)}")
    if garbage.beside:
        print(
            f"  beside them: {len(garbage.beside):,} old lists, notes on old shards, accounts of "
            "old runs, half-written files"
        )
    print(f"  kept: {_listed('version', garbage.kept)}")
    for made, left in garbage.unfinished.items():
        what = f"generation {made}" if made else "manifests"
        print(
            f"  left for a run to go on with: {left / 1e6:,.3f} MB of {what}; --abandoned takes it"
        )
    if (garbage.files or garbage.beside) and not deleted:
        print("nothing was deleted; --delete does it")


def _listed(what: str, numbers: tuple[int, ...]) -> str:
    return f"{what}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
