"""What a dataset's folder holds, past what readers see."""

from pipeline.folder import Folder
from pipeline.garbage import find_garbage
from pipeline.manifest import FOLDERS
from pipeline.records import WORK


def garbage_of(folder: Folder, keep: int = 0) -> list[str]:
    """Paths of what neither the published snapshot nor the newest so many refer to."""
    return list(find_garbage(folder, keep, abandoned=True).files)


def files_of(folder: Folder) -> set[str]:
    """Paths of all data files, quarantine files and records, whoever wrote them."""
    return {
        f"{kind}/{made_by}/{name}"
        for kind in (*FOLDERS, WORK)
        for made_by in folder.folders(kind)
        for name in folder.names(f"{kind}/{made_by}")
    }
