"""Kinds of values that can be typed, and arguments that several commands have."""

import argparse
import math
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What commands are added to."""


def add_storage(parser: argparse.ArgumentParser) -> None:
    """How the stores are reached."""
    parser.add_argument(
        "--storage", metavar="SPEC", help="a job spec whose `storage` says how to reach it"
    )


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    """Keys of a spec that are typed."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"override a key of the spec, for example {example}",
    )


def positive(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def not_negative(text: str) -> int:
    """A whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def above_zero(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def all_or_not_negative(text: str) -> int | None:
    """A whole number from 0; None for `all`."""
    return None if text == "all" else not_negative(text)
