"""The job of a dataset, kept beside it, so that it can be gone on with from its URL alone.

It is what the last run was asked to do, with locations that hold from any working directory. How
stores are reached is not in it, nor taken from it: whoever can write to a dataset could name a file
of whoever goes on with it as a secret, and an endpoint to send it to. Nothing of the protocol
depends on it.
"""

import json
from collections.abc import Sequence

from pipeline.errors import OutputError, SpecError
from pipeline.folder import Folder
from pipeline.log import JOB
from pipeline.spec import JobSpec
from pipeline.spec_file import parse_spec
from pipeline.storage import absolute
from pipeline.stores import StoreSpec

_STORAGE = "storage"


def located(spec: JobSpec) -> JobSpec:
    """The job with every location spelled so that it holds from any working directory."""
    sources = [s.located([absolute(uri) for uri in s.uris]) for s in spec.sources]
    nightly, queries = spec.nightly, spec.nightly.gate.queries
    if queries is not None:
        gate = nightly.gate.model_copy(update={"queries": absolute(queries)})
        nightly = nightly.model_copy(update={"gate": gate})
        spec = spec.model_copy(update={"nightly": nightly})
    return spec.model_copy(
        update={
            "model": spec.model.located(absolute),
            # as it was written, so that an override of one key is spelled as for the spec
            "source": sources if isinstance(spec.source, list) else sources[0],
            "output": spec.output.model_copy(update={"uri": absolute(spec.output.uri)}),
        }
    )


def keep_job(folder: Folder, spec: JobSpec) -> None:
    """Write a job beside its dataset, in the place of the one before."""
    # what was not written is left out: a key that is there says more than its default
    plain = located(spec).model_dump(mode="json", exclude_unset=True, exclude={_STORAGE})
    folder.put(JOB, json.dumps(plain, indent=1).encode())


def kept_job(folder: Folder, overrides: Sequence[str], storage: Sequence[StoreSpec]) -> JobSpec:
    """The job that was kept, with its output at the folder.

    Args:
        folder: the dataset's root.
        overrides: `key=value` settings that win over it.
        storage: how stores are reached.

    Raises:
        OutputError: none is there, or a damaged one.
        SpecError: an override is wrong.
    """
    if any(override.startswith((f"{_STORAGE}.", f"{_STORAGE}=")) for override in overrides):
        raise SpecError(f"--set {_STORAGE}: give a spec that says so with --storage SPEC instead")
    try:
        plain = json.loads(folder.get(JOB))
        plain["output"]["uri"] = folder.uri
        # earlier versions kept it
        plain.pop(_STORAGE, None)
    except FileNotFoundError:
        raise OutputError(f"{folder.uri!r} holds no {JOB}: no run has begun there") from None
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{folder.uri}/{JOB} is damaged: {error}") from error
    return parse_spec(plain, overrides).model_copy(update={_STORAGE: list(storage)})
