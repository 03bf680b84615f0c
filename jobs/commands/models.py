"""What the commands about checkpoints and devices call."""

import argparse

from jobs.commands.kinds import Command


def _benchmark(arguments: argparse.Namespace) -> None:
    from jobs.benchmark import run

    run(arguments)


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from pipeline.spec import json_schema

    print(json.dumps(json_schema(), indent=2))


def _pairs(arguments: argparse.Namespace) -> None:
    from jobs.pairs import run

    run(arguments.directory)


def _checkpoint_nano(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import make_nano

    make_nano(arguments.directory)


def _checkpoint_tiny(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import make_tiny

    make_tiny(arguments.directory, arguments.seed, arguments.hidden)


def _checkpoint_full(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import make_full

    make_full(arguments.directory, arguments.seed)


def _checkpoint_verify(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import verify

    verify(arguments.directory)


def _train(arguments: argparse.Namespace) -> None:
    from jobs.train import run
    from pipeline.spec_file import load_spec
    from pipeline.training.spec import TrainSpec

    run(load_spec(arguments.spec, arguments.overrides, TrainSpec), arguments.address)


def _corpus(arguments: argparse.Namespace) -> None:
    from jobs.corpus import run

    run(arguments.directory)


COMMANDS: dict[str, Command] = {
    "benchmark": _benchmark,
    "schema": _schema,
    "checkpoint_nano": _checkpoint_nano,
    "checkpoint_tiny": _checkpoint_tiny,
    "checkpoint_full": _checkpoint_full,
    "checkpoint_verify": _checkpoint_verify,
    "train": _train,
    "corpus": _corpus,
    "pairs": _pairs,
}
