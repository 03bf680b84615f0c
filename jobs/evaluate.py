"""`nightjar evaluate`: how well queries find what is relevant to them in a snapshot.

Queries are embedded as `nightjar search` embeds them, with the checkpoint that made the snapshot,
after all has been checked that can be without it. Nothing of the dataset is written: a table is
printed, and a folder gets the result as JSON and as a chart.
"""

import json
import sys

import numpy as np

from jobs.asking import Asker, Named
from jobs.evaluated import Evaluation, show
from pipeline.dataset import open_dataset
from pipeline.errors import SpecError
from pipeline.folder import Folder
from pipeline.index.alignment import alignment_of
from pipeline.index.beir import read_asked
from pipeline.index.coverage import barred, coverage_of
from pipeline.index.documents import documents_of
from pipeline.index.evaluate import Questions, evaluate
from pipeline.index.rows import Snapshot
from pipeline.index.spec import EvaluateSpec
from pipeline.storage import use_stores
from pipeline.tasks import task_named

RESULT, CHART = "evaluation.json", "evaluation.png"
_PROBE = "evaluation.probe"
_IN_SPEC = Named(model="model.path", version="dataset.version")


def run(spec: EvaluateSpec, out: str, *, as_json: bool) -> None:
    """The command.

    Args:
        spec: of the evaluation.
        out: path or URL of a folder for the result and the chart.
        as_json: whether the result is printed as JSON.

    Raises:
        SpecError: nothing can be evaluated so, or nothing can be written there.
    """
    use_stores(spec.storage)
    folder = Folder(out)
    found = evaluation_of(spec, folder)
    whole = json.dumps(found.as_record(), indent=2, allow_nan=False)
    from pipeline.index.chart import drawn

    folder.put(RESULT, f"{whole}\n".encode())
    folder.put(CHART, drawn(found.results, found.title))
    if as_json:
        print(whole)
    else:
        show(found)
    told = sys.stderr if as_json else sys.stdout
    print(f"written: {folder.uri}/{RESULT} and {folder.uri}/{CHART}", file=told)


def evaluation_of(spec: EvaluateSpec, out: Folder) -> Evaluation:
    """The evaluation of a spec.

    Args:
        spec: of it.
        out: the folder that it will be written to, which is tried as soon as all has been checked.
    """
    asked = read_asked(spec)
    dataset = open_dataset(spec.dataset.uri, spec.dataset.version)
    task = task_named(spec.queries.task)
    documents = documents_of(Snapshot.of(dataset), task)
    # ids that are made up, of the number of a row, are nobody's
    has_ids = spec.qrels is not None or spec.queries.id is not None
    barred_Q = barred(asked.texts, documents, spec.ignore_identical_ids and has_ids)
    key = "queries.relevant" if spec.qrels is None else "qrels"
    coverage = coverage_of(asked, documents, barred_Q, key, task)
    try:
        # before everything is embedded
        out.put(_PROBE, b"")
        out.delete(_PROBE)
    except OSError as error:
        why = error.strerror or error
        raise SpecError(f"--out: cannot write to {out.uri!r}: {why}") from None
    model = spec.model.model_dump(exclude_unset=True)
    asker = Asker.of(dataset, model, spec.storage, task.adapter, _IN_SPEC)
    named = {f"queries.uri: the query {name!r}": text for name, text in asked.texts.items()}
    found = asker.ask(named, task, documents.has_multi)
    multi = None
    if found.multi is not None:
        multi = [vectors_TD.astype(np.float32, copy=False) for vectors_TD in found.multi]
    questions = Questions(
        names=tuple(asked.texts),
        single_QD=None if asker.dim is None else found.single,
        multi=multi,
        barred_Q=barred_Q,
    )
    dims = [dim for dim in sorted(asker.matryoshka_dims) if dim <= (asker.dim or 0)]
    return Evaluation(
        spec=spec,
        version=dataset.version,
        documents=len(documents.names),
        rows=documents.rows,
        truncated=int(found.truncated.sum()),
        coverage=coverage,
        results=evaluate(documents, questions, asked.judgements, dims, spec.multi),
        alignment=alignment_of(documents),
    )
