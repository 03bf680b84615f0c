"""The inputs: prose of log-normal length, and page images of several sizes.

Real corpora have a few long documents among many short ones; that is what padding costs, so the
lengths are log-normal (median 200 tokens, sigma 1, cut to 16 .. 2048) unless a script says
otherwise, in the order they were drawn. The text is Python's own help, cut at token borders; pages
are the quickstart corpus's, drawn from the installation and scaled like scans of several makes.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tokenizers import Tokenizer

from benchmarks.setting import PREFIX
from pipeline.corpus.pages import render_pages
from pipeline.corpus.stdlib import read_library, stdlib_root

_SCALES = (0.75, 1.0, 1.5, 2.0)
_TINY_PAGES = ((84, 112), (140, 84), (56, 60), (200, 90))


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of the texts: log-normal, cut at both ends."""

    median: float = 200
    """Half of the texts are shorter."""
    sigma: float = 1.0
    """Standard deviation of the logarithm."""
    shortest: int = 16
    """Shorter ones are drawn up to this."""
    longest: int = 2048
    """Longer ones are cut to this."""


def make_texts(directory: Path, count: int, lengths: Lengths, seed: int) -> list[str]:
    """Texts of about the drawn numbers of tokens.

    Args:
        directory: of the checkpoint, for its tokenizer.
        count: how many.
        lengths: of each, the task's prefix not counted.
        seed: equal seeds give equal texts.
    """
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    prose = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    ids = tokenizer.encode(prose).ids
    random = np.random.default_rng(seed)
    drawn = random.lognormal(np.log(lengths.median), lengths.sigma, count)
    sizes = np.clip(drawn, lengths.shortest, lengths.longest).astype(int)
    starts = random.integers(0, len(ids) - lengths.longest, count)
    # white space at the ends is not a text's own
    return [
        tokenizer.decode(ids[start : start + size]).strip() or "an empty stretch"
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]


def count_tokens(directory: Path, texts: list[str]) -> list[int]:
    """Tokens of each text, the task's prefix included."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [len(found.ids) for found in tokenizer.encode_batch([PREFIX + text for text in texts])]


def make_pages(count: int, *, tiny: bool) -> list[bytes]:
    """Encoded page images; `tiny` ones are noise, drawn at once."""
    if tiny:
        random = np.random.default_rng(0)
        shapes = [_TINY_PAGES[n % len(_TINY_PAGES)] for n in range(count)]
        noise = [random.integers(0, 255, (h, w, 3), np.uint8) for h, w in shapes]
        return [_png(Image.fromarray(pixels)) for pixels in noise]
    drawn = [page.image for page in render_pages(read_library(stdlib_root()), count)]
    scaled = []
    for number, image in enumerate(drawn):
        scale = _SCALES[number % len(_SCALES)]
        scaled.append(image.resize((int(image.width * scale), int(image.height * scale))))
    return [_png(image) for image in scaled]


def write_rows(directory: Path, texts: list[str], files: int) -> None:
    """The texts as Parquet files with the columns id and text."""
    directory.mkdir(parents=True, exist_ok=True)
    per_file = -(-len(texts) // files)
    for number in range(files):
        chosen = texts[number * per_file : (number + 1) * per_file]
        ids = pa.array(range(number * per_file, number * per_file + len(chosen)), pa.int64())
        pq.write_table(
            pa.table({"id": ids, "text": pa.array(chosen, pa.string())}),
            directory / f"part-{number:03}.parquet",
            row_group_size=1024,
        )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
