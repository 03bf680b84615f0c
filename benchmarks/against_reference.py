"""Texts and pages against the reference's own `encode_text` and `encode_image`.

Each output alone costs the reference one pass and both cost it two; ours gives both in one. The
vectors of some items are compared before anything is timed. What padding costs depends on how the
lengths fall into batches of 8: 256 texts pad 2.87 times, 20,000 of them 2.91 times, 48 only 2.4.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import Lengths, count_tokens, make_pages, make_texts
from benchmarks.ours import Ours
from benchmarks.peers.reference import BATCH, ReferenceWay
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    OURS,
    Options,
    checkpoint,
    demand_agreement,
    difference,
    options_of,
    parser,
)
from benchmarks.timing import interleave

REFERENCE = "reference, batches of 8 as they come"
_COMPARED = 16
"""Items whose vectors are compared."""


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--texts", type=int, default=256)
    made.add_argument("--pages", type=int, default=8)
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    lengths = Lengths(median=24, longest=96) if options.quick else Lengths()
    texts = make_texts(directory, 9 if options.quick else parsed.texts, lengths, options.seed)
    pages = make_pages(3 if options.quick else parsed.pages, tiny=options.quick)
    ours, peer = Ours(directory, options), ReferenceWay(directory, options.torch_dtype)
    sizes = count_tokens(directory, texts)
    text_work = {"items": len(texts), "tokens": sum(sizes), "padded_tokens": _padded(sizes)}
    page_tokens = int(ours.embed(pages, multi=False).n_tokens.sum())
    comparisons = [
        *_compare("texts", texts, text_work, ours, peer, options),
        *_compare(
            "pages", pages, {"items": len(pages), "tokens": page_tokens}, ours, peer, options
        ),
    ]
    config = {"texts": len(texts), "pages": len(pages), "batch": BATCH, "lengths": vars(lengths)}
    return write_result("against_reference", options, comparisons, config)


def _compare(
    what: str,
    items: Sequence[str | bytes],
    work: dict[str, float],
    ours: Ours,
    peer: ReferenceWay,
    options: Options,
) -> list[Comparison]:
    """Single vectors alone, then both outputs."""
    encode = peer.encode_text if what == "texts" else peer.encode_image
    some = items[:_COMPARED]
    found = ours.embed(some, multi=True)
    single = difference(list(found.single), encode(some, multi=False))
    multi = difference(found.multi, encode(some, multi=True))
    differences = {REFERENCE: {"single": single, "multi": multi}}
    demand_agreement(differences, options.dtype)

    def both() -> None:
        encode(items, multi=False)
        encode(items, multi=True)

    one = interleave(
        {
            OURS: lambda: ours.embed(items, multi=False),
            REFERENCE: lambda: encode(items, multi=False),
        },
        options.repeats,
    )
    two = interleave(
        {OURS: lambda: ours.embed(items, multi=True), REFERENCE: both}, options.repeats
    )
    return [
        Comparison(
            name=f"{what}, {outputs}",
            baseline=OURS,
            timings=timings,
            work=work,
            differences={REFERENCE: {name: differences[REFERENCE][name] for name in compared}},
        )
        for outputs, timings, compared in (
            ("single vectors", one, ("single",)),
            ("single and multi-vectors", two, ("single", "multi")),
        )
    ]


def _padded(sizes: Sequence[int]) -> int:
    """Tokens the reference computes: every batch is padded to its longest."""
    batches = (sizes[start : start + BATCH] for start in range(0, len(sizes), BATCH))
    return sum(len(batch) * max(batch) for batch in batches)


if __name__ == "__main__":
    main()
