"""The `nightjar` command.

Exit codes: 0 done, 1 the run failed, 2 the user's mistake. Commands are imported when they are
called, so that `nightjar show` does not wait for torch.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jobs.arguments import parser
from jobs.printed import printed
from pipeline.credentials import redact
from pipeline.errors import NightjarError, UnexpectedError
from pipeline.stores import StoreSpec, has_password

if TYPE_CHECKING:
    from pipeline.dataset import Dataset

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    typed = sys.argv[1:] if arguments is None else arguments
    if any(map(has_password, typed)):
        # before anything is parsed: whoever refuses an argument shows it
        _tell(
            "nightjar: there is a password in a URL; name it in the `storage` section of a spec "
            "instead, and that spec with --storage"
        )
        return 2
    parsed = parser().parse_args(typed)
    try:
        _COMMANDS[parsed.command](parsed)
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
    for line in redact("\n".join(line.rstrip("\n") for line in lines)).split("\n"):
        # sentences name ids, paths and columns, which are data
        print(printed(line), file=sys.stderr)


def _opened(arguments: argparse.Namespace) -> "Dataset":
    from pipeline.dataset import open_dataset

    _use_storage(arguments.storage)
    return open_dataset(arguments.uri, arguments.version)


def _use_storage(path: str | None) -> Sequence[StoreSpec]:
    from pipeline.spec_file import load_spec
    from pipeline.storage import use_stores

    stores = [] if path is None else load_spec(path).storage
    use_stores(stores)
    return stores


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
    storage = _use_storage(arguments.storage)
    from jobs.retry import run

    run(
        arguments.uri,
        arguments.overrides,
        arguments.address,
        reasons=arguments.reasons,
        storage=storage,
        price=arguments.price,
    )


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


def _versions(arguments: argparse.Namespace) -> None:
    _use_storage(arguments.storage)
    from jobs.versions import show

    show(arguments.uri, arguments.last)


def _runs(arguments: argparse.Namespace) -> None:
    _use_storage(arguments.storage)
    from jobs.runs import show

    show(arguments.uri, arguments.last, arguments.json)


def _publish(arguments: argparse.Namespace) -> None:
    _use_storage(arguments.storage)
    from jobs.versions import publish_version

    publish_version(arguments.uri, arguments.version)


def _rollback(arguments: argparse.Namespace) -> None:
    _use_storage(arguments.storage)
    from jobs.versions import roll_back_to

    roll_back_to(arguments.uri, arguments.version)


def _tag(arguments: argparse.Namespace) -> None:
    _use_storage(arguments.storage)
    from jobs.versions import tag_version

    tag_version(arguments.uri, arguments.name, arguments.version, arguments.delete)


def _gc(arguments: argparse.Namespace) -> None:
    _use_storage(arguments.storage)
    from jobs.gc import run

    run(arguments.uri, arguments.keep, arguments.abandoned, arguments.delete)


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


_COMMANDS: dict[str, Command] = {
    "show": _show,
    "verify": _verify,
    "quarantine": _quarantine,
    "versions": _versions,
    "runs": _runs,
    "publish": _publish,
    "rollback": _rollback,
    "tag": _tag,
    "gc": _gc,
    "export": _export,
    "schema": _schema,
    "corpus": _corpus,
    "embed": _embed,
    "nightly": _nightly,
    "plan": _plan,
    "retry": _retry,
    "checkpoint_tiny": _checkpoint_tiny,
    "checkpoint_full": _checkpoint_full,
    "checkpoint_verify": _checkpoint_verify,
    "benchmark": _benchmark,
}

if __name__ == "__main__":
    sys.exit(main())
