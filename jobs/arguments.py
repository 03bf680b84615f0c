"""The arguments of the `nightjar` command: what can be typed, and what it means."""

import argparse
import math
from importlib.metadata import version


def parser() -> argparse.ArgumentParser:
    """The parser of `nightjar`: each command leaves its name in `command`."""
    found = argparse.ArgumentParser(
        prog="nightjar", description="Re-embed whole corpora with jina-embeddings-v4."
    )
    found.add_argument("--version", action="version", version=version("nightjar"))
    commands = found.add_subparsers(required=True, metavar="COMMAND")

    _add_embed(commands, "embed", "embed a corpus into a committed Arrow dataset")
    _add_embed(commands, "nightly", "embed what has changed since the last snapshot")
    _add_plan(commands)
    _add_benchmark(commands)
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

    _add_retry(commands)
    _add_versions(commands)
    _add_gc(commands)
    export = commands.add_parser(
        "export", help="write a snapshot for tools that want another format"
    )
    _add_dataset(export)
    export.add_argument("--format", required=True, choices=("parquet", "lance"))
    export.add_argument("destination", metavar="DEST", help="a new directory")
    export.set_defaults(command="export")

    schema = commands.add_parser("schema", help="print the JSON Schema of a job spec")
    schema.set_defaults(command="schema")

    _add_checkpoint(commands)

    corpus = commands.add_parser(
        "corpus", help="build the quickstart corpus from the Python installation"
    )
    corpus.add_argument("directory", metavar="DIR")
    corpus.set_defaults(command="corpus")
    return found


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", help="root of the dataset")
    parser.add_argument("--version", help="a number or a tag; the published one by default")
    _add_storage(parser)


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", metavar="SPEC", help="a job spec whose `storage` says how to reach it"
    )


def _add_embed(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> None:
    embed = commands.add_parser(name, help=what)
    embed.add_argument("spec", help="the job spec, a YAML file")
    _add_run(embed)
    embed.add_argument("--json", action="store_true", help="print the account as JSON")
    embed.set_defaults(command=name)


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        "--price", type=_above_zero, help="of the device for an hour, in any currency"
    )
    plan.add_argument(
        "--sample", type=_positive, default=10_000, help="rows that are counted, at most about"
    )
    plan.add_argument("--json", action="store_true", help="print it as JSON")
    plan.set_defaults(command="plan")


def _add_retry(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    _add_storage(retry)
    retry.set_defaults(command="retry")


def _add_versions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    versions = commands.add_parser("versions", help="list what was committed, the newest first")
    versions.add_argument("uri", help="root of the dataset")
    versions.add_argument("--last", type=_positive, default=20, help="how many to print")
    _add_storage(versions)
    versions.set_defaults(command="versions")

    for name, what in (("publish", "a newer snapshot"), ("rollback", "an earlier snapshot again")):
        change = commands.add_parser(name, help=f"give readers {what}")
        change.add_argument("uri", help="root of the dataset")
        change.add_argument("version", metavar="VERSION", help="a number or a tag")
        _add_storage(change)
        change.set_defaults(command=name)

    tag = commands.add_parser("tag", help="name a version, so that it is kept")
    tag.add_argument("uri", help="root of the dataset")
    tag.add_argument("name", metavar="NAME", help="a new tag, or one that is to move")
    tag.add_argument(
        "version", metavar="VERSION", nargs="?", help="a number or a tag; the published one"
    )
    tag.add_argument("--delete", action="store_true", help="take the name from its version")
    _add_storage(tag)
    tag.set_defaults(command="tag")


def _add_gc(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    gc = commands.add_parser("gc", help="show, or delete, what no version to be kept needs")
    gc.add_argument("uri", help="root of the dataset")
    gc.add_argument(
        "--keep",
        type=_not_negative,
        default=7,
        help="how many of the newest snapshots stay readable, beside the published and the tagged",
    )
    gc.add_argument(
        "--abandoned",
        action="store_true",
        help="also what was never committed: no run is to go on with it",
    )
    gc.add_argument("--delete", action="store_true", help="delete it; else it is only shown")
    _add_storage(gc)
    gc.set_defaults(command="gc")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a key of the spec, for example output.uri=./elsewhere",
    )
    parser.add_argument(
        "--address",
        default="local",
        help="which Ray: local (default), auto, host:port, ray://host:port, or none for no Ray",
    )


def _add_checkpoint(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    checkpoint = commands.add_parser("checkpoint", help="make or verify a checkpoint")
    kinds = checkpoint.add_subparsers(required=True, metavar="KIND")
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


def _add_benchmark(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        "--token-budget", type=_positive, help="tokens of a pack; measured by default"
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
        type=_above_zero,
        default=10.0,
        help="about how long each mix is repeated; a second or two tells little",
    )
    benchmark.add_argument(
        "--price", type=_above_zero, help="of the device for an hour, in any currency"
    )
    benchmark.add_argument(
        "--output", default="./benchmark", help="where benchmark.json and benchmark.png go"
    )
    benchmark.set_defaults(command="benchmark")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
