"""The arguments of commands about checkpoints, devices and specs."""

import argparse

from jobs.arguments.kinds import Commands, above_zero, add_overrides, positive


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_benchmark(commands)
    _add_checkpoint(commands)
    train = commands.add_parser("train", help="have a backbone or an adapter learn from pairs")
    train.add_argument("spec", metavar="SPEC")
    add_overrides(train, "steps=100")
    train.add_argument(
        "--address",
        default="none",
        help="none (default): this process; or a Ray whose workers train together: local, auto, "
        "host:port",
    )
    train.set_defaults(command="train")
    schema = commands.add_parser("schema", help="print the JSON Schema of a job spec")
    schema.set_defaults(command="schema")

    corpus = commands.add_parser(
        "corpus", help="build the quickstart corpus from the Python installation"
    )
    corpus.add_argument("directory", metavar="DIR")
    corpus.set_defaults(command="corpus")

    pairs = commands.add_parser(
        "pairs",
        help="write the pairs that nano is trained on, from Debian's package index",
        description="Write the pairs that nano is trained on and measured by, from what apt and "
        "Python have here. Takes half an hour or more on Debian, 250 MB of package indexes, and "
        "the extra `nano`, whose teacher reads them.",
    )
    pairs.add_argument(
        "directory", metavar="DIR", help="where they go; if they are there, nothing is done"
    )
    pairs.set_defaults(command="pairs")


def _add_benchmark(commands: Commands) -> None:
    benchmark = commands.add_parser(
        "benchmark", help="measure how fast a checkpoint embeds on this device"
    )
    benchmark.add_argument("model", help="a directory, an object-store URL or a hub id")
    benchmark.add_argument(
        "--address",
        default="none",
        help="none (default): this process; or a Ray to measure one device of: local, auto, "
        "ray://host:port",
    )
    benchmark.add_argument("--adapter", help="which to merge; the first by default")
    benchmark.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    benchmark.add_argument(
        "--token-budget", type=positive, help="tokens of a pack; measured by default"
    )
    benchmark.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="have torch compile the layers; on GPUs by default",
    )
    benchmark.add_argument(
        "--multi",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make multi-vectors beside the single vectors",
    )
    benchmark.add_argument(
        "--seconds",
        type=above_zero,
        default=10.0,
        help="about how long each mix is repeated; a second or two tells little",
    )
    benchmark.add_argument(
        "--price", type=above_zero, help="of the device for an hour, in any currency"
    )
    benchmark.add_argument(
        "--output", default="./benchmark", help="where benchmark.json and benchmark.png go"
    )
    benchmark.set_defaults(command="benchmark")


def _add_checkpoint(commands: Commands) -> None:
    checkpoint = commands.add_parser("checkpoint", help="make or verify a checkpoint")
    kinds = checkpoint.add_subparsers(required=True, metavar="KIND")
    nano = kinds.add_parser("nano", help="trained, small, and part of this installation")
    nano.add_argument("directory", metavar="DIR")
    nano.set_defaults(command="checkpoint_nano")
    tiny = kinds.add_parser("tiny", help="random weights, small, in the official file layout")
    tiny.add_argument("directory", metavar="DIR")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.add_argument("--hidden", type=int, default=64, help="hidden size, a multiple of 64")
    tiny.set_defaults(command="checkpoint_tiny")
    full = kinds.add_parser("full", help="random weights of the real geometry (8 GB)")
    full.add_argument("directory", metavar="DIR")
    full.add_argument("--seed", type=int, default=0)
    full.set_defaults(command="checkpoint_full")
    verify = kinds.add_parser("verify", help="load a checkpoint strictly and say what it is")
    verify.add_argument(
        "directory", metavar="DIR", help="a directory, an object-store URL or a hub id"
    )
    verify.set_defaults(command="checkpoint_verify")
