"""What a dataset's folder holds, past what readers see."""

from collections.abc import Collection

from pipeline.folder import Folder
from pipeline.garbage import find_garbage
from pipeline.log import DATA, QUARANTINE, newest_entry
from pipeline.records import WORK


def garbage_of(folder: Folder, keep: Collection[int] = ()) -> list[str]:
    """Paths of the files that neither the newest version nor those to be kept refer to."""
    newest = newest_entry(folder)
    assert newest is not None
    return find_garbage(folder, newest, keep)


def files_of(folder: Folder) -> set[str]:
    """Paths of all data files, quarantine files and records, whoever wrote them."""
    return {
        f"{kind}/{made_by}/{name}"
        for kind in (DATA, QUARANTINE, WORK)
        for made_by in folder.folders(kind)
        for name in folder.names(f"{kind}/{made_by}")
    }
