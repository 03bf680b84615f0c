"""The program one writes first: read_parquet, an actor with the model, write_parquet.

Two actors. `Padded` is what the transformers and Ray documentation lead to: tokenise a batch with
padding, one forward pass, mean pooling; both outputs come from that pass, as a careful author would
have it. `Sorted` hands larger batches to sentence-transformers, which sorts them by length: single
vectors only. Both hold the merged decoder, so neither pays for LoRA or lm_head.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoTokenizer

from benchmarks.peers import sentence_transformer
from benchmarks.peers.merged_decoder import PROJECTOR
from benchmarks.setting import PREFIX
from pipeline.model.device import DTYPES

Batch = dict[str, Any]

PADDED_BATCH, SORTED_BATCH = 32, 1024
"""Rows of one call: what a model takes at once, and what sentence-transformers sorts over."""


class Padded:
    """transformers' AutoModel on padded batches in the order of arrival."""

    def __init__(self, directory: str, dtype: str, threads: int, multi: bool) -> None:
        torch.set_num_threads(threads)
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._model = AutoModel.from_pretrained(directory, dtype=DTYPES[dtype]).eval()
        self._multi = multi
        projector = load_file(Path(directory) / PROJECTOR)
        self._weight, self._bias = projector["weight"], projector["bias"]

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Batch:
        """Add the vectors to a batch of ids and texts."""
        prompts = [PREFIX + text for text in batch["text"]]
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, truncation=True)
        hidden_BTH = self._model(**inputs, use_cache=False).last_hidden_state
        mask_BT1 = inputs["attention_mask"][..., None]
        pooled_BH = (hidden_BTH * mask_BT1).float().sum(1) / mask_BT1.sum(1)
        found = {
            "id": batch["id"],
            "embedding": nn.functional.normalize(pooled_BH, dim=-1).numpy(),
        }
        if self._multi:
            vectors_BTD = nn.functional.linear(hidden_BTH, self._weight, self._bias).float()
            halves_BTD = nn.functional.normalize(vectors_BTD, dim=-1).half().numpy()
            lengths = inputs["attention_mask"].sum(1).tolist()
            found["multivector"] = _ragged(
                [v_TD[:length] for v_TD, length in zip(halves_BTD, lengths, strict=True)]
            )
        return found


class Sorted:
    """sentence-transformers, which sorts the rows of a call by length."""

    def __init__(self, directory: str, dtype: str, threads: int, multi: bool) -> None:
        if multi:
            raise ValueError("sentence-transformers gives single vectors here")
        torch.set_num_threads(threads)
        self._model = sentence_transformer.load(Path(directory), DTYPES[dtype])

    def __call__(self, batch: Batch) -> Batch:
        """Add the vectors to a batch of ids and texts."""
        texts = batch["text"].tolist()
        default = sentence_transformer.DEFAULT_BATCH
        vectors = sentence_transformer.encode(self._model, texts, default)
        return {"id": batch["id"], "embedding": vectors}


def run(
    address: str,
    actor: Callable[..., Any],
    arguments: tuple[str, str, int, bool],
    source: Path,
    output: Path,
) -> None:
    """The whole program, from connecting to the last file.

    Args:
        address: of a running Ray.
        actor: `Padded` or `Sorted`.
        arguments: of its constructor: model directory, dtype, threads, whether multi-vectors too.
        source: folder of Parquet files with id and text.
        output: folder for the vectors.
    """
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        DataContext.get_current().enable_progress_bars = False
        (
            ray.data.read_parquet(str(source))
            .map_batches(
                actor,
                fn_constructor_args=arguments,
                batch_size=SORTED_BATCH if actor is Sorted else PADDED_BATCH,
                compute=ActorPoolStrategy(size=1),
                num_cpus=arguments[2],
            )
            .write_parquet(str(output))
        )
    finally:
        ray.shutdown()


def _ragged(arrays: list[np.ndarray]) -> np.ndarray:
    """As Ray Data wants tensors of different shapes: an array of arrays."""
    held = np.empty(len(arrays), dtype=object)
    held[:] = arrays
    return held
