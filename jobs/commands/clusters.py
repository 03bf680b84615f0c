"""What the commands about jobs on a cluster call."""

import argparse
from typing import TYPE_CHECKING

from jobs.commands.kinds import Command

if TYPE_CHECKING:
    from pipeline.submission.head import Head


def _submit(arguments: argparse.Namespace) -> None:
    from jobs.submit import run

    run(arguments)


def _jobs(arguments: argparse.Namespace) -> None:
    from jobs.remote import show_jobs

    show_jobs(_head(arguments), arguments.last)


def _logs(arguments: argparse.Namespace) -> None:
    from jobs.remote import show_logs

    show_logs(_head(arguments), arguments.id, follow=arguments.follow)


def _stop(arguments: argparse.Namespace) -> None:
    from jobs.remote import stop

    stop(_head(arguments), arguments.id)


def _head(arguments: argparse.Namespace) -> "Head":
    from pipeline.submission.head import Head

    return Head(arguments.address, insecure=arguments.insecure)


COMMANDS: dict[str, Command] = {
    "submit": _submit,
    "jobs": _jobs,
    "logs": _logs,
    "stop": _stop,
}
