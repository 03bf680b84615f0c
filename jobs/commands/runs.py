"""What the commands that embed call."""

import argparse

from jobs.commands.kinds import Command, use_storage


def _embed(arguments: argparse.Namespace) -> None:
    from pipeline.spec_file import load_spec

    # before the import of torch: a typing mistake should not cost its seconds
    spec = load_spec(arguments.spec, arguments.overrides)
    from jobs.embed import run

    run(
        arguments.spec,
        spec,
        arguments.address,
        price=arguments.price,
        as_json=arguments.json,
    )


def _nightly(arguments: argparse.Namespace) -> None:
    from pipeline.spec_file import load_spec

    spec = load_spec(arguments.spec, arguments.overrides)
    from jobs.nightly import run

    run(
        arguments.spec,
        spec,
        arguments.address,
        price=arguments.price,
        as_json=arguments.json,
        allow_empty=arguments.allow_empty,
    )


def _plan(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.spec_file import load_spec

    spec = load_spec(arguments.spec, arguments.overrides)
    from jobs.plan import run

    run(
        spec,
        arguments.address,
        benchmark=None if arguments.benchmark is None else Path(arguments.benchmark),
        price=arguments.price,
        sample=arguments.sample,
        as_json=arguments.json,
    )


def _retry(arguments: argparse.Namespace) -> None:
    storage = use_storage(arguments.storage)
    from jobs.retry import run

    run(
        arguments.uri,
        arguments.overrides,
        arguments.address,
        reasons=arguments.reasons,
        storage=storage,
        price=arguments.price,
    )


COMMANDS: dict[str, Command] = {
    "embed": _embed,
    "nightly": _nightly,
    "plan": _plan,
    "retry": _retry,
}
