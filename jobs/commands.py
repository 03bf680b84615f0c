"""What each command calls, with what was typed for it.

Imported when it is called, so that `nightjar show` does not wait for torch, and a mistake in a spec
is told at once.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.stores import StoreSpec

if TYPE_CHECKING:
    from pipeline.dataset import Dataset
    from pipeline.submission.head import Head

Command = Callable[[argparse.Namespace], None]


def _opened(arguments: argparse.Namespace) -> "Dataset":
    from pipeline.dataset import open_dataset

    _use_storage(arguments.storage)
    return open_dataset(arguments.uri, arguments.version)


def _use_storage(path: str | None) -> Sequence[StoreSpec]:
    from pipeline.spec_file import load_storage
    from pipeline.storage import use_stores

    stores = [] if path is None else load_storage(path)
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


def _search(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    storage = _use_storage(arguments.storage)
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


def _audit(arguments: argparse.Namespace) -> None:
    from jobs.audit import run
    from pipeline.index.spec import BackfillSpec
    from pipeline.spec_file import load_spec

    spec = load_spec(arguments.spec, arguments.overrides, BackfillSpec)
    run(spec, rows=arguments.rows, repair=arguments.repair, as_json=arguments.json)


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
    "show": _show,
    "verify": _verify,
    "quarantine": _quarantine,
    "versions": _versions,
    "runs": _runs,
    "publish": _publish,
    "rollback": _rollback,
    "tag": _tag,
    "gc": _gc,
    "backfill": _backfill,
    "audit": _audit,
    "search": _search,
    "evaluate": _evaluate,
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
    "submit": _submit,
    "jobs": _jobs,
    "logs": _logs,
    "stop": _stop,
}
