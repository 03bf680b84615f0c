"""What an adapter costs: beside every linear against merged, and a switch against a new engine.

The first is measured on the stock model with peft's own layers, before and after peft's own
merging, on equal batches and without lm_head: nothing else differs. The second is ours: `switch`
merges another adapter into the weights that are there, a new engine opens and loads everything.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.corpus import Lengths, make_texts
from benchmarks.ours import load_engine
from benchmarks.peers.official import load_official
from benchmarks.record import Comparison, write_result
from benchmarks.setting import (
    ADAPTER,
    TASK,
    Options,
    checkpoint,
    demand_agreement,
    difference,
    options_of,
    parser,
)
from benchmarks.timing import interleave
from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.processor import PreparedItem, Processor
from pipeline.tasks import task_named

MERGED, UNMERGED = "peft, merged", "peft, beside each linear"
SWITCH, RELOAD = "nightjar, switch", "nightjar, a new engine"
OTHER = "code"


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=8, help="texts of one pass, equally long")
    made.add_argument("--length", type=int, default=512, help="their tokens")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    directory = checkpoint(options)
    shape = (2, 32) if options.quick else (parsed.batch, parsed.length)
    comparisons = [_merging(directory, options, shape), _switching(directory, options)]
    config = {"batch": shape[0], "length": shape[1]}
    return write_result("adapters", options, comparisons, config)


def _merging(directory: Path, options: Options, shape: tuple[int, int]) -> Comparison:
    """One pass of the decoder over equally long texts."""
    beside = load_official(directory, ADAPTER, options.torch_dtype)
    merged = load_official(directory, ADAPTER, torch.float32)
    # merged in float32 and rounded once, as it should be
    merged.merge_adapter([ADAPTER])
    merged.to(options.torch_dtype)
    random = torch.Generator().manual_seed(options.seed)
    # ids of ordinary entries: a special one would ask for an image
    ids_BT = torch.randint(0, 2000, shape, generator=random)

    @torch.inference_mode()
    def hidden(model: torch.nn.Module) -> torch.Tensor:
        positions = torch.arange(shape[1]).expand(3, shape[0], -1)
        decoder = model.base_model.model.model.language_model
        found: torch.Tensor = decoder(
            input_ids=ids_BT, position_ids=positions, use_cache=False
        ).last_hidden_state
        return found

    pooled = [
        torch.nn.functional.normalize(hidden(model).float().mean(1), dim=-1).numpy()
        for model in (merged, beside)
    ]
    differences = {UNMERGED: {"single": difference([pooled[0]], [pooled[1]])}}
    demand_agreement(differences, options.dtype)
    return Comparison(
        name="LoRA, one pass of the decoder",
        baseline=MERGED,
        timings=interleave(
            {MERGED: lambda: hidden(merged), UNMERGED: lambda: hidden(beside)}, options.repeats
        ),
        work={"items": shape[0], "tokens": shape[0] * shape[1]},
        differences=differences,
    )


def _switching(directory: Path, options: Options) -> Comparison:
    """From one adapter to the other, there and back in turns."""
    items = _prepared(directory, options)
    engine = load_engine(directory, options)
    engine.switch(OTHER)
    switched = engine.embed(items).single
    differences = {
        RELOAD: {
            "single": difference(
                [switched], [load_engine(directory, options, OTHER).embed(items).single]
            )
        }
    }
    demand_agreement(differences, options.dtype)
    turns: Iterator[str] = cycle((ADAPTER, OTHER))
    return Comparison(
        name="another adapter",
        baseline=SWITCH,
        timings=interleave(
            {
                SWITCH: lambda: engine.switch(next(turns)),
                RELOAD: lambda: load_engine(directory, options, OTHER),
            },
            options.repeats,
        ),
        work={"adapters": 1},
        differences=differences,
    )


def _prepared(directory: Path, options: Options) -> list[PreparedItem]:
    processor = Processor(open_checkpoint(directory))
    texts = make_texts(directory, 4, Lengths(median=24, longest=96), options.seed)
    return [processor.text(text, task_named(TASK)) for text in texts]


if __name__ == "__main__":
    main()
