"""sentence-transformers' way: texts sorted by length over the whole call, padded in fixed batches.

Single vectors only: mean pooling and L2 over the merged decoder, which its own `Transformer` module
loads as any other Qwen2. What it has for unpadding needs FlashAttention 2 and so a GPU.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from benchmarks.setting import PREFIX

DEFAULT_BATCH = 32
BATCHES = (8, 16, DEFAULT_BATCH, 64)
"""What a user who tunes it would try."""


def load(directory: Path, dtype: torch.dtype) -> SentenceTransformer:
    """The merged decoder as a SentenceTransformer.

    Args:
        directory: from `write_merged`.
        dtype: to compute in.
    """
    transformer = Transformer(
        str(directory), model_kwargs={"dtype": dtype, "attn_implementation": "sdpa"}
    )
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def encode(model: SentenceTransformer, texts: Sequence[str], batch: int) -> NDArray[np.float32]:
    """[texts, hidden], in the order given."""
    found = model.encode(list(texts), prompt=PREFIX, batch_size=batch, show_progress_bar=False)
    return np.asarray(found, dtype=np.float32)
