"""`nightjar versions`, `publish`, `rollback`, `tag`: what was committed, and what readers get."""

from itertools import pairwise

from pipeline.folder import Folder
from pipeline.log import Kind, LogEntry, read_condemned, read_log
from pipeline.published import publish, roll_back, tag, untag


def show(uri: str, last: int) -> None:
    """The list of versions, the newest first.

    Args:
        uri: root of the dataset.
        last: how many to print.

    Raises:
        OutputError: nothing has been committed there.
    """
    folder = Folder(uri)
    entries = read_log(folder)
    newest = entries[-1]
    condemned = read_condemned(folder, newest)
    told = [_of_snapshot(entries[0]), *(_change(*pair) for pair in pairwise(entries))]
    print(f"{'version':>7}  {'committed':<25}  {'readers get':>11}  what")
    for entry, what in list(zip(entries, told, strict=True))[: -last - 1 : -1]:
        is_gone = entry.kind is Kind.SNAPSHOT and entry.manifest in condemned
        tags = [name for name, version in newest.tags.items() if version == entry.version]
        marks = [
            *(["published"] if entry.version == newest.published else []),
            *(["discarded"] if entry.version in newest.withheld else []),
            *(f"tag {name}" for name in sorted(tags)),
            *(["collected"] if is_gone else []),
        ]
        more = f" ({', '.join(marks)})" if marks else ""
        readers = entry.published or "none"
        print(f"{entry.version:>7}  {entry.created_at:<25}  {readers:>11}  {what}{more}")
        for reason in entry.refused if entry.kind is Kind.SNAPSHOT else ():
            print(f"{'':>48}refused: {reason}")
    if last < len(entries):
        print(f"{len(entries) - last:,} older; --last {len(entries)} lists all")


def publish_version(uri: str, version: str) -> None:
    """Give readers a newer snapshot."""
    _tell_published(uri, publish(Folder(uri), version))


def roll_back_to(uri: str, version: str) -> None:
    """Give readers an earlier snapshot again."""
    entry = roll_back(Folder(uri), version)
    _tell_published(uri, entry)
    if entry.withheld:
        print("what later versions have added is discarded: it is embedded anew, or not at all")


def tag_version(uri: str, name: str, version: str | None, delete: bool) -> None:
    """Name a version, or take its name from it."""
    if delete:
        untag(Folder(uri), name)
        print(f"{uri}: the tag {name} is no more")
        return
    entry = tag(Folder(uri), name, version)
    print(f"{uri}: {name} is version {entry.tags[name]}, which is kept for as long as it is named")


def _tell_published(uri: str, entry: LogEntry) -> None:
    print(f"{uri}: readers get version {entry.published or 'none'}")


def _of_snapshot(entry: LogEntry) -> str:
    what = entry.kind if entry.published == entry.version else "candidate"
    return f"{what}: {entry.rows:,} rows, {entry.quarantined:,} quarantined"


def _change(before: LogEntry, entry: LogEntry) -> str:
    match entry.kind:
        case Kind.SNAPSHOT:
            return _of_snapshot(entry)
        case Kind.ROLLBACK if entry.published == before.published:
            return f"{entry.kind}: what came after version {entry.published} is discarded"
        case Kind.PUBLISH | Kind.ROLLBACK:
            earlier = before.published or "none"
            return f"{entry.kind}: version {entry.published} instead of {earlier}"
        case Kind.TAG:
            named = dict(entry.tags.items() - before.tags.items())
            gone = before.tags.keys() - entry.tags.keys()
            parts = [f"{name} is {version}" for name, version in named.items()]
            return f"{entry.kind}: {', '.join([*parts, *(f'{name} is no more' for name in gone)])}"
        case Kind.GC:
            return f"{entry.kind}: files were condemned and deleted"
