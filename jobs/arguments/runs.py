"""The arguments of commands that embed, or say what embedding would be."""

import argparse

from jobs.arguments.kinds import Commands, above_zero, add_overrides, add_storage, positive


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_embed(commands, "embed", "embed a corpus into a committed Arrow dataset")
    nightly = _add_embed(commands, "nightly", "embed what has changed since the last snapshot")
    nightly.add_argument(
        "--allow-empty",
        action="store_true",
        help="let a source without objects or rows empty the dataset",
    )
    _add_plan(commands)
    _add_retry(commands)


def _add_embed(commands: Commands, name: str, what: str) -> argparse.ArgumentParser:
    embed = commands.add_parser(name, help=what)
    embed.add_argument("spec", help="the job spec, a YAML file")
    _add_run(embed)
    embed.add_argument("--json", action="store_true", help="print the account as JSON")
    embed.set_defaults(command=name)
    return embed


def _add_plan(commands: Commands) -> None:
    plan = commands.add_parser(
        "plan", help="say what `nightly` would do, and what it would cost; nothing is written"
    )
    plan.add_argument("spec", help="the job spec, a YAML file")
    _add_run(plan)
    plan.set_defaults(address="none")
    plan.add_argument(
        "--benchmark",
        metavar="FILE",
        help="what `nightjar benchmark` wrote of the device that is meant; "
        "./benchmark/benchmark.json by default, when it is there",
    )
    plan.add_argument(
        "--sample", type=positive, default=10_000, help="rows that are counted, at most about"
    )
    plan.add_argument("--json", action="store_true", help="print it as JSON")
    plan.set_defaults(command="plan")


def _add_retry(commands: Commands) -> None:
    retry = commands.add_parser("retry", help="try again what was set aside and may go well now")
    retry.add_argument("uri", help="root of the dataset")
    retry.add_argument(
        "--reason",
        dest="reasons",
        action="append",
        default=[],
        help="what to try again; by default all that does not lie in the row alone",
    )
    _add_run(retry)
    add_storage(retry)
    retry.set_defaults(command="retry")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, "output.uri=./elsewhere")
    parser.add_argument(
        "--price",
        type=above_zero,
        help="of a device for an hour, in any currency: what the run costs is told by it",
    )
    parser.add_argument(
        "--address",
        default="local",
        help="which Ray: local (default), auto, host:port, ray://host:port, or none for no Ray",
    )
