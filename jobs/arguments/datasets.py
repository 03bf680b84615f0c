"""The arguments of commands that read a dataset, or change what readers get of it."""

import argparse

from jobs.arguments.kinds import Commands, add_storage, not_negative, positive


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_readers(commands)
    _add_versions(commands)
    _add_gc(commands)
    runs = commands.add_parser("runs", help="list how the last runs went")
    runs.add_argument("uri", help="root of the dataset")
    runs.add_argument("--last", type=positive, default=20, help="how many to print")
    runs.add_argument("--json", action="store_true", help="print all that is known of each")
    add_storage(runs)
    runs.set_defaults(command="runs")


def _add_readers(commands: Commands) -> None:
    show = commands.add_parser("show", help="print what a dataset holds")
    _add_dataset(show)
    show.add_argument("--rows", type=int, default=3, help="rows to print")
    show.set_defaults(command="show")

    verify = commands.add_parser("verify", help="hold every file of a snapshot against its sha256")
    _add_dataset(verify)
    verify.set_defaults(command="verify")

    quarantine = commands.add_parser("quarantine", help="list what was set aside, by reason")
    _add_dataset(quarantine)
    quarantine.add_argument("--examples", type=int, default=3, help="items to print of each reason")
    quarantine.add_argument("--json", action="store_true", help="print it as JSON")
    quarantine.set_defaults(command="quarantine")

    export = commands.add_parser(
        "export", help="write a snapshot for tools that want another format"
    )
    _add_dataset(export)
    export.add_argument("--format", required=True, choices=("parquet", "lance"))
    export.add_argument("destination", metavar="DEST", help="a new directory")
    export.set_defaults(command="export")


def _add_versions(commands: Commands) -> None:
    versions = commands.add_parser("versions", help="list what was committed, the newest first")
    versions.add_argument("uri", help="root of the dataset")
    versions.add_argument("--last", type=positive, default=20, help="how many to print")
    add_storage(versions)
    versions.set_defaults(command="versions")

    for name, what in (("publish", "a newer snapshot"), ("rollback", "an earlier snapshot again")):
        change = commands.add_parser(name, help=f"give readers {what}")
        change.add_argument("uri", help="root of the dataset")
        change.add_argument("version", metavar="VERSION", help="a number or a tag")
        add_storage(change)
        change.set_defaults(command=name)

    tag = commands.add_parser("tag", help="name a version, so that it is kept")
    tag.add_argument("uri", help="root of the dataset")
    tag.add_argument("name", metavar="NAME", help="a new tag, or one that is to move")
    tag.add_argument(
        "version", metavar="VERSION", nargs="?", help="a number or a tag; the published one"
    )
    tag.add_argument("--delete", action="store_true", help="take the name from its version")
    add_storage(tag)
    tag.set_defaults(command="tag")


def _add_gc(commands: Commands) -> None:
    gc = commands.add_parser("gc", help="show, or delete, what no version to be kept needs")
    gc.add_argument("uri", help="root of the dataset")
    gc.add_argument(
        "--keep",
        type=not_negative,
        default=7,
        help="how many of the newest snapshots stay readable, beside the published and the tagged",
    )
    gc.add_argument(
        "--abandoned",
        action="store_true",
        help="also what was never committed: no run is to go on with it",
    )
    gc.add_argument("--delete", action="store_true", help="delete it; else it is only shown")
    add_storage(gc)
    gc.set_defaults(command="gc")


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", help="root of the dataset")
    parser.add_argument("--version", help="a number or a tag; the published one by default")
    add_storage(parser)
