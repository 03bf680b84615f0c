"""`nightjar submit`: what a spec says, done by a Ray cluster.

The spec is checked here, the cluster's version of Ray is asked, and then a job is submitted that
does what the same command does anywhere. Before it embeds anything it asks every node whether it
can take part; until then this command stays, even when it is to leave it.
"""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from jobs.remote import ended, followed
from pipeline.errors import SpecError
from pipeline.index.spec import BackfillSpec, EvaluateSpec
from pipeline.job_file import located
from pipeline.software import supports
from pipeline.spec import JobSpec
from pipeline.spec_file import keys_of, load_spec
from pipeline.storage import absolute
from pipeline.submission.head import About, Head, Submitted
from pipeline.submission.package import SPEC, digest, packaged

_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "price": ("embed", "nightly"),
        "allow_empty": ("nightly",),
        "beside": ("backfill",),
        "older": ("backfill",),
        "out": ("evaluate",),
        "json": ("embed", "nightly", "backfill", "evaluate"),
    }
)
"""And the commands that have them."""
_BUSY = ("pending", "running")


def run(arguments: Namespace) -> None:
    """The command.

    Raises:
        SpecError: the spec, an option or the address is wrong, or another job writes to its output.
        JobEnded: the job has failed.
    """
    kind = arguments.kind or _kind(arguments.spec, arguments.overrides)
    spec, about = _SPECS[kind](arguments.spec, arguments.overrides)
    command = [kind, SPEC, *_options(arguments, kind)]
    head = Head(arguments.address, insecure=arguments.insecure)
    _demand_supported(head)
    with packaged(spec, code=arguments.package == "project") as folder:
        job = _running_or_submitted(head, folder, shlex.join(command), about)
    follow = followed(head, job.id, until_checked=arguments.detach, as_json=arguments.json)
    ended(head, job.id, follow, detached=arguments.detach)


def _job(command: str) -> Callable[[str, Sequence[str]], tuple[JobSpec, About]]:
    def load(path: str, overrides: Sequence[str]) -> tuple[JobSpec, About]:
        spec = located(load_spec(path, overrides))
        return spec, _about(command, spec.name, spec.output.uri)

    return load


def _backfill(path: str, overrides: Sequence[str]) -> tuple[BackfillSpec, About]:
    spec = load_spec(path, overrides, BackfillSpec).located(absolute)
    store = spec.store
    return spec, _about("backfill", store.collection, f"{store.collection} in {store.url}")


def _evaluate(path: str, overrides: Sequence[str]) -> tuple[EvaluateSpec, About]:
    spec = load_spec(path, overrides, EvaluateSpec).located(absolute)
    return spec, _about("evaluate", "evaluation", "")


_SPECS = {
    "embed": _job("embed"),
    "nightly": _job("nightly"),
    "backfill": _backfill,
    "evaluate": _evaluate,
}


def _about(command: str, name: str, output: str) -> About:
    return About(command=command, spec=name, output=output, version=version("nightjar"))


def _kind(path: str, overrides: Sequence[str]) -> str:
    """What a spec is of, by its sections."""
    keys = keys_of(path, overrides)
    if "queries" in keys:
        return "evaluate"
    if "store" in keys:
        return "backfill"
    return "nightly" if "nightly" in keys else "embed"


def _options(arguments: Namespace, kind: str) -> list[str]:
    """Those of the command, as they are typed."""
    if kind == "evaluate" and arguments.out is None:
        raise SpecError(
            "--out: say where the evaluation is to be written, an object store or a disk that the "
            "cluster shares"
        )
    values = {name: getattr(arguments, name) for name in _OPTIONS}
    if arguments.out is not None:
        values["out"] = absolute(arguments.out)
    typed: list[str] = []
    for name, value in values.items():
        if value in (None, False):
            continue
        option = f"--{name.replace('_', '-')}"
        if kind not in _OPTIONS[name]:
            raise SpecError(
                f"{option}: is of {' and '.join(_OPTIONS[name])}, and this spec is of {kind}; "
                "leave it out, or say with --as what is meant"
            )
        typed += [option] if value is True else [option, str(value)]
    return typed


def _demand_supported(head: Head) -> None:
    wanted = supports("ray", head.ray_version)
    if wanted is not None:
        raise SpecError(
            f"--address: {head.url} runs Ray {head.ray_version}, and Nightjar needs ray{wanted} "
            "there"
        )


def _running_or_submitted(head: Head, folder: Path, command: str, about: About) -> Submitted:
    """The job of a package: whoever submits what is running, as a pod that was replaced does,
    follows that."""
    about = replace(about, digest=digest(folder, command))
    job = _busy_with(head, about)
    if job is not None:
        print(f"running already: {job.id}, on {head.url}", file=sys.stderr)
        return job
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    entrypoint = f"python -m jobs.submitted {command}"
    job = head.submit(folder, entrypoint, id=f"{about.spec}-{moment}", about=about)
    print(f"submitted: {job.id}, to {head.url}", file=sys.stderr)
    return job


def _busy_with(head: Head, about: About) -> Submitted | None:
    """The very same job, if it has not ended; another one with its output is refused."""
    for job in head.jobs():
        if job.status not in _BUSY or not about.output or job.about.output != about.output:
            continue
        if job.about.digest != about.digest:
            raise SpecError(
                f"{about.output!r} is being written to by the job {job.id}; follow it with "
                f"`nightjar logs {job.id} --follow --address {head.url}`, or end it with "
                f"`nightjar stop {job.id} --address {head.url}`"
            )
        return job
    return None
