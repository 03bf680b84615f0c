"""What the commands about vector stores call."""

import argparse

from jobs.commands.kinds import Command


def _backfill(arguments: argparse.Namespace) -> None:
    from jobs.backfill import roll_back_to_previous, run
    from pipeline.index.spec import BackfillSpec
    from pipeline.spec_file import load_spec

    spec = load_spec(arguments.spec, arguments.overrides, BackfillSpec)
    if arguments.rollback:
        roll_back_to_previous(spec)
        return
    run(
        spec,
        arguments.address,
        beside=arguments.beside,
        older=arguments.older,
        as_json=arguments.json,
    )


def _audit(arguments: argparse.Namespace) -> None:
    from jobs.audit import run
    from pipeline.index.spec import BackfillSpec
    from pipeline.spec_file import load_spec

    spec = load_spec(arguments.spec, arguments.overrides, BackfillSpec)
    run(spec, rows=arguments.rows, repair=arguments.repair, as_json=arguments.json)


COMMANDS: dict[str, Command] = {
    "backfill": _backfill,
    "audit": _audit,
}
