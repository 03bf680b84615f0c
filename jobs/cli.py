"""The `nightjar` command.

Exit codes: 0 done, 1 the run failed, 2 the user's mistake. Commands are imported when they are
called, so that `nightjar show` does not wait for torch.
"""

import argparse
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from pipeline.credentials import redact
from pipeline.errors import NightjarError, UnexpectedError

if TYPE_CHECKING:
    from pipeline.dataset import Dataset

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    command: Command = parsed.command
    try:
        command(parsed)
    except NightjarError as error:
        _tell(f"nightjar: {error}", *getattr(error, "__notes__", ()))
        if isinstance(error, UnexpectedError) and error.__cause__ is not None:
            _tell(*traceback.format_exception(error.__cause__))
        return error.exit_code
    except OSError as error:
        # a disk or an object store that refused; BrokenPipeError is the reader of our output
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
            return 0
        _tell(f"nightjar: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("nightjar: interrupted; nothing was committed; the same command goes on from here")
        return 1
    except Exception as error:
        # a bug: shown whole, as Python would, but for what is secret
        _tell(*traceback.format_exception(error))
        return 1
    return 0


def _tell(*lines: str) -> None:
    for line in lines:
        print(redact(line), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nightjar", description="Re-embed whole corpora with jina-embeddings-v4."
    )
    parser.add_argument("--version", action="version", version=version("nightjar"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_embed(commands)
    _add_benchmark(commands)
    show = commands.add_parser("show", help="print what a dataset holds")
    _add_dataset(show)
    show.add_argument("--rows", type=int, default=3, help="rows to print")
    show.set_defaults(command=_show)

    verify = commands.add_parser("verify", help="hold every file of a snapshot against its sha256")
    _add_dataset(verify)
    verify.set_defaults(command=_verify)

    quarantine = commands.add_parser("quarantine", help="list what was set aside, by reason")
    _add_dataset(quarantine)
    quarantine.add_argument("--examples", type=int, default=3, help="items to print of each reason")
    quarantine.add_argument("--json", action="store_true", help="print it as JSON")
    quarantine.set_defaults(command=_quarantine)

    export = commands.add_parser(
        "export", help="write a snapshot for tools that want another format"
    )
    _add_dataset(export)
    export.add_argument("--format", required=True, choices=("parquet", "lance"))
    export.add_argument("destination", metavar="DEST", help="a new directory")
    export.set_defaults(command=_export)

    schema = commands.add_parser("schema", help="print the JSON Schema of a job spec")
    schema.set_defaults(command=_schema)

    _add_checkpoint(commands)

    corpus = commands.add_parser(
        "corpus", help="build the quickstart corpus from the Python installation"
    )
    corpus.add_argument("directory", metavar="DIR")
    corpus.set_defaults(command=_corpus)
    return parser


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", help="root of the dataset")
    parser.add_argument("--version", type=int, help="a snapshot; the newest by default")
    parser.add_argument(
        "--storage", metavar="SPEC", help="a job spec whose `storage` says how to reach it"
    )


def _opened(arguments: argparse.Namespace) -> "Dataset":
    from pipeline.dataset import open_dataset

    _use_storage(arguments.storage)
    return open_dataset(arguments.uri, arguments.version)


def _use_storage(path: str | None) -> None:
    from pipeline.spec_file import load_spec
    from pipeline.storage import use_stores

    use_stores(() if path is None else load_spec(path).storage)


def _add_embed(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    embed = commands.add_parser("embed", help="embed a corpus into a committed Arrow dataset")
    embed.add_argument("spec", help="the job spec, a YAML file")
    embed.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a key of the spec, for example output.uri=./elsewhere",
    )
    embed.add_argument(
        "--address",
        default="local",
        help="which Ray: local (default), auto, ray://host:port, or none for no Ray at all",
    )
    embed.add_argument("--json", action="store_true", help="print the account as JSON")
    embed.set_defaults(command=_embed)


def _add_checkpoint(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    checkpoint = commands.add_parser("checkpoint", help="make or verify a checkpoint")
    kinds = checkpoint.add_subparsers(required=True, metavar="KIND")
    tiny = kinds.add_parser("tiny", help="random weights, small, in the official file layout")
    tiny.add_argument("directory", metavar="DIR")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.add_argument("--hidden", type=int, default=64, help="hidden size, a multiple of 64")
    tiny.set_defaults(command=_checkpoint_tiny)
    full = kinds.add_parser("full", help="random weights of the real geometry (8 GB)")
    full.add_argument("directory", metavar="DIR")
    full.add_argument("--seed", type=int, default=0)
    full.set_defaults(command=_checkpoint_full)
    verify = kinds.add_parser("verify", help="load a checkpoint strictly and say what it is")
    verify.add_argument(
        "directory", metavar="DIR", help="a directory, an object-store URL or a hub id"
    )
    verify.set_defaults(command=_checkpoint_verify)


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
    benchmark.set_defaults(command=_benchmark)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _embed(arguments: argparse.Namespace) -> None:
    from pipeline.spec_file import load_spec

    # before the import of torch: a typing mistake should not cost its seconds
    spec = load_spec(arguments.spec, arguments.overrides)
    from jobs.embed import run

    run(spec, arguments.address, arguments.json)


def _benchmark(arguments: argparse.Namespace) -> None:
    from jobs.benchmark import run

    run(arguments)


def _show(arguments: argparse.Namespace) -> None:
    from jobs.show import run

    run(_opened(arguments), arguments.rows)


def _verify(arguments: argparse.Namespace) -> None:
    from jobs.verify import run

    run(_opened(arguments))


def _quarantine(arguments: argparse.Namespace) -> None:
    from jobs.quarantine import run

    run(_opened(arguments), arguments.examples, arguments.json)


def _export(arguments: argparse.Namespace) -> None:
    from jobs.export import run

    run(_opened(arguments), arguments.format, arguments.destination)


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from pipeline.spec import json_schema

    print(json.dumps(json_schema(), indent=2))


def _checkpoint_tiny(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import make_tiny

    make_tiny(arguments.directory, arguments.seed, arguments.hidden)


def _checkpoint_full(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import make_full

    make_full(arguments.directory, arguments.seed)


def _checkpoint_verify(arguments: argparse.Namespace) -> None:
    from jobs.checkpoint import verify

    verify(arguments.directory)


def _corpus(arguments: argparse.Namespace) -> None:
    from jobs.corpus import run

    run(arguments.directory)


if __name__ == "__main__":
    sys.exit(main())
