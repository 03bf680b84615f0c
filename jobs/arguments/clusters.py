"""The arguments of commands about jobs on a cluster."""

import argparse

from jobs.arguments.kinds import Commands, above_zero, add_overrides, positive

KINDS = ("embed", "nightly", "backfill", "evaluate")
"""Commands that can be submitted."""


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_submit(commands)
    jobs = commands.add_parser("jobs", help="list the jobs of a cluster")
    jobs.add_argument("--last", type=positive, default=10, help="how many, 10 by default")
    _add_cluster(jobs, "jobs")
    logs = commands.add_parser("logs", help="show what a job of a cluster says")
    logs.add_argument("id", help="of the job, as `nightjar jobs` lists it")
    logs.add_argument(
        "--follow", action="store_true", help="until it ends; the exit code is the job's"
    )
    _add_cluster(logs, "logs")
    stop = commands.add_parser("stop", help="stop a job of a cluster")
    stop.add_argument("id", help="of the job, as `nightjar jobs` lists it")
    _add_cluster(stop, "stop")


def _add_submit(commands: Commands) -> None:
    submit = commands.add_parser("submit", help="have a Ray cluster do what a spec says")
    submit.add_argument("spec", help="of a job, a backfill or an evaluation, a YAML file")
    add_overrides(submit, "output.uri=s3://bucket/elsewhere")
    submit.add_argument(
        "--as",
        dest="kind",
        choices=KINDS,
        help="what is done; by default what the spec is of, and of a job nightly when it has a "
        "section of that name",
    )
    how = submit.add_mutually_exclusive_group()
    how.add_argument(
        "--wait",
        action="store_true",
        help="follow the job until it ends, with its exit code (default)",
    )
    how.add_argument(
        "--detach", action="store_true", help="leave it as soon as the cluster was found fit"
    )
    submit.add_argument(
        "--package",
        choices=("project", "image"),
        default="project",
        help="run the code of this installation (default), or what the cluster has installed",
    )
    more = submit.add_argument_group("of the command that is submitted")
    more.add_argument("--price", type=above_zero, help="see `nightjar embed`")
    more.add_argument("--allow-empty", action="store_true", help="see `nightjar nightly`")
    more.add_argument("--beside", action="store_true", help="see `nightjar backfill`")
    more.add_argument("--older", action="store_true", help="see `nightjar backfill`")
    more.add_argument("--out", help="see `nightjar evaluate`")
    more.add_argument("--json", action="store_true", help="print the account as JSON")
    _add_cluster(submit, "submit")


def _add_cluster(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--address",
        required=True,
        metavar="URL",
        help="of the cluster's dashboard, such as http://head:8265",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="use a cluster that everybody on the internet can use, or a token in the clear",
    )
    parser.set_defaults(command=name)
