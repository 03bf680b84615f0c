"""Nightjar: re-embed whole corpora with jina-embeddings-v4.

Three sentences tell what may import what. The ground floor (`pipeline/*.py`) is the standard
library, pyarrow, fsspec and pydantic; `pipeline.model` is torch and knows neither Ray nor storage;
`pipeline.stages` is the flow on Ray and knows no vector store; `pipeline.index` is what happens
after the commit and knows neither Ray nor torch. `stages` may use `model`; only `jobs` may know
everything. Data crosses each border as Arrow and comes back as receipts; what the
world sees is a committed dataset on object storage.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.dataset import open_dataset
    from pipeline.model.embedder import Embedder
    from pipeline.model.outputs import Embeddings
    from pipeline.spec import JobSpec

__all__ = ["Embedder", "Embeddings", "JobSpec", "open_dataset"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: reading a dataset must not import torch."""
    if name == "Embedder":
        from pipeline.model import embedder as module
    elif name == "Embeddings":
        from pipeline.model import outputs as module  # type: ignore[no-redef]
    elif name == "JobSpec":
        from pipeline import spec as module  # type: ignore[no-redef]
    elif name == "open_dataset":
        from pipeline import dataset as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(module, name)
