"""The arguments of commands that fill a vector store, or look at what it holds."""

import argparse

from jobs.arguments.kinds import Commands, add_overrides, all_or_not_negative


def add(commands: Commands) -> None:
    """Add the commands."""
    backfill = commands.add_parser("backfill", help="fill a vector store from a snapshot")
    _add_spec(backfill)
    how = backfill.add_mutually_exclusive_group()
    how.add_argument(
        "--beside", action="store_true", help="fill a new collection, which then takes the alias"
    )
    how.add_argument(
        "--rollback", action="store_true", help="give readers the collection before again"
    )
    backfill.add_argument(
        "--older", action="store_true", help="let an older snapshot replace a newer one"
    )
    backfill.add_argument(
        "--address",
        default="none",
        help="which Ray writes, when there is much: local, auto, host:port, ray://host:port, or "
        "none (default) for this process",
    )
    backfill.set_defaults(command="backfill")

    audit = commands.add_parser("audit", help="hold a vector store against its snapshot")
    _add_spec(audit)
    audit.add_argument(
        "--rows",
        type=all_or_not_negative,
        default=1000,
        help="how many to read back and compare whole, or `all`; stamps are compared of all",
    )
    audit.add_argument("--repair", action="store_true", help="make right what is wrong")
    audit.set_defaults(command="audit")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", help="the backfill's spec, a YAML file")
    add_overrides(parser, "dataset.version=3")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
