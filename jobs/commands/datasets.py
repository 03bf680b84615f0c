"""What the commands about datasets call."""

import argparse
from typing import TYPE_CHECKING

from jobs.commands.kinds import Command, use_storage

if TYPE_CHECKING:
    from pipeline.dataset import Dataset


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
    use_storage(arguments.storage)
    from jobs.versions import show

    show(arguments.uri, arguments.last)


def _runs(arguments: argparse.Namespace) -> None:
    use_storage(arguments.storage)
    from jobs.runs import show

    show(arguments.uri, arguments.last, arguments.json)


def _publish(arguments: argparse.Namespace) -> None:
    use_storage(arguments.storage)
    from jobs.versions import publish_version

    publish_version(arguments.uri, arguments.version)


def _rollback(arguments: argparse.Namespace) -> None:
    use_storage(arguments.storage)
    from jobs.versions import roll_back_to

    roll_back_to(arguments.uri, arguments.version)


def _tag(arguments: argparse.Namespace) -> None:
    use_storage(arguments.storage)
    from jobs.versions import tag_version

    tag_version(arguments.uri, arguments.name, arguments.version, arguments.delete)


def _gc(arguments: argparse.Namespace) -> None:
    use_storage(arguments.storage)
    from jobs.gc import run

    run(arguments.uri, arguments.keep, arguments.abandoned, arguments.delete)


def _search(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    storage = use_storage(arguments.storage)
    from jobs.search import Wanted, run

    wanted = Wanted(
        query=arguments.query,
        image=None if arguments.image is None else Path(arguments.image),
        most=arguments.most,
        candidates=arguments.candidates,
        multi=arguments.multi,
        condition=arguments.filter,
        task=arguments.task,
        model=arguments.model,
    )
    run(arguments.uri, arguments.version, storage, wanted, as_json=arguments.json)


def _evaluate(arguments: argparse.Namespace) -> None:
    from pipeline.index.spec import EvaluateSpec
    from pipeline.spec_file import load_spec

    spec = load_spec(arguments.spec, arguments.overrides, EvaluateSpec)
    from jobs.evaluate import run

    run(spec, arguments.out, as_json=arguments.json)


def _export(arguments: argparse.Namespace) -> None:
    from jobs.export import run

    run(_opened(arguments), arguments.format, arguments.destination)


def _opened(arguments: argparse.Namespace) -> "Dataset":
    from pipeline.dataset import open_dataset

    use_storage(arguments.storage)
    return open_dataset(arguments.uri, arguments.version)


COMMANDS: dict[str, Command] = {
    "show": _show,
    "verify": _verify,
    "quarantine": _quarantine,
    "versions": _versions,
    "runs": _runs,
    "publish": _publish,
    "rollback": _rollback,
    "tag": _tag,
    "gc": _gc,
    "search": _search,
    "evaluate": _evaluate,
    "export": _export,
}
