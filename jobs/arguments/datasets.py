"""The arguments of commands that read a dataset, or change what readers get of it."""

import argparse

from jobs.arguments.kinds import Commands, add_overrides, add_storage, not_negative, positive


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_readers(commands)
    _add_search(commands)
    _add_evaluate(commands)
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


def _add_search(commands: Commands) -> None:
    search = commands.add_parser("search", help="print what a text or an image finds")
    search.add_argument(
        "uri", help="root of the dataset, or the spec of a backfill: then its store is searched"
    )
    search.add_argument("query", nargs="?", help="a text")
    search.add_argument("--image", metavar="FILE", help="an image, instead of a text")
    search.add_argument(
        "-k", dest="most", type=positive, default=10, help="how many documents to print"
    )
    search.add_argument(
        "--multi",
        action="store_true",
        help="put what single vectors find in order by MaxSim of the multi-vectors",
    )
    search.add_argument(
        "--candidates", type=positive, default=100, help="how many are put in order, at least"
    )
    search.add_argument(
        "--filter", metavar="CONDITION", help='for example: lang == "en" and year >= 2020'
    )
    search.add_argument(
        "--task", help="of the query; by default the one that fits the rows that are there"
    )
    search.add_argument(
        "--model", help="where the checkpoint is; by default where the dataset's job says"
    )
    search.add_argument("--version", help="a number or a tag; the published one by default")
    search.add_argument("--json", action="store_true", help="print one JSON object a line")
    add_storage(search)
    search.set_defaults(command="search")


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="measure how well queries find what is relevant to them"
    )
    evaluate.add_argument("spec", help="the evaluation's spec, a YAML file")
    add_overrides(evaluate, "dataset.version=3")
    evaluate.add_argument(
        "--out",
        default="./evaluation",
        help="a path or object-store URL: where evaluation.json and evaluation.png go",
    )
    evaluate.add_argument("--json", action="store_true", help="print the result as JSON")
    evaluate.set_defaults(command="evaluate")


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
