"""Cross-modal alignment: how near the text and the image of one thing are, beside those of any two.

    matching = mean cosine of the text and the image of the same document
    random   = mean cosine of the text of one document and the image of another

The first is the figure of the model's authors (Günther et al., jina-embeddings-v4, 2025, after
Eslami and de Melo, Mitigate the Gap, 2025). Alone it says little: vectors that all lie in a narrow
cone have a high one. So the second stands beside it. It is what random pairs would give on
average, and exact: over all n (n - 1) of them the sum is that of all texts times that of all
images, less the matching ones.

Both are of single vectors of the largest size. Of several texts or images of a document the first
counts. Vectors are held only until their counterpart is read.

Legend: n documents with both, D size of a vector.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.index.documents import Documents
from pipeline.index.scoring import singles
from pipeline.schema import largest_single

_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How near text and image are."""

    matching: float
    """Mean cosine of the text and the image of the same document, from -1 to 1."""
    random: float
    """Mean cosine of the text of one and the image of another, likewise."""
    pairs: int
    """Documents with both."""
    random_pairs: int
    """Pairs of different ones."""


def alignment_of(documents: Documents) -> Alignment | str:
    """The alignment of the documents that have a text and an image; else why there is none.

    Args:
        documents: of one task, so that their vectors can be compared.
    """
    column = largest_single(documents.snapshot.schema)
    if column is None:
        return "the dataset has no single vectors"
    paired_D = _paired(documents)
    pairs = int(paired_D.sum())
    if pairs < 2:
        some = "only one document has" if pairs else "no document has"
        return f"{some} both a text and an image"
    matching = 0.0
    size = documents.snapshot.schema.field(column).type.list_size
    sums = {is_image: np.zeros(size) for is_image in (False, True)}
    waiting: dict[tuple[int, bool], NDArray[np.float64]] = {}
    done: set[tuple[int, bool]] = set()
    for piece, cells in documents.read(column, _AT_ONCE, paired_D):
        vectors_ND = singles(cells)[piece.of_N].astype(np.float64)
        for number, is_image, vector_D in zip(
            piece.numbers_N.tolist(), piece.images_N.tolist(), vectors_ND, strict=True
        ):
            if (number, is_image) in done:
                continue
            done.add((number, is_image))
            unit_D = vector_D / np.linalg.norm(vector_D)
            sums[is_image] += unit_D
            other = waiting.pop((number, not is_image), None)
            if other is None:
                waiting[number, is_image] = unit_D
            else:
                matching += float(other @ unit_D)
    random_pairs = pairs * (pairs - 1)
    return Alignment(
        matching=matching / pairs,
        random=(float(sums[False] @ sums[True]) - matching) / random_pairs,
        pairs=pairs,
        random_pairs=random_pairs,
    )


def _paired(documents: Documents) -> NDArray[np.bool_]:
    """Which documents have a text and an image."""
    has = {is_image: np.zeros(len(documents.names), np.bool_) for is_image in (False, True)}
    for piece in documents.pieces:
        for is_image, has_D in has.items():
            has_D[piece.numbers_N[piece.images_N == is_image]] = True
    return has[False] & has[True]
