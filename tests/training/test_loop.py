"""A training, whole: what learns, what is written, and what a kill costs."""

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.errors import OutputError, SpecError
from pipeline.model.adapters import WeightReader
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.engine import Engine
from pipeline.model.processor import Processor
from pipeline.tasks import TASKS
from pipeline.training.adapters import lora_config
from pipeline.training.collate import Collator
from pipeline.training.held_out import _read
from pipeline.training.learner import Learner
from pipeline.training.loop import Step
from pipeline.training.optimizer import Optimizer
from pipeline.training.pairs import NOTHING, UNTOLD, Pair
from pipeline.training.share import Alone
from pipeline.training.spec import AdapterSpec, OptimizerSpec
from tests.training.conftest import MakeTraining

_CPU = torch.device("cpu")
_TEXTS = ("alpha beta", "what is a kappa?", "RHO", "one two three four five six seven eight")


class Stopped(Exception):
    """What a kill is here."""


def _stopping_after(step: int, seen: list[Step]) -> Callable[[Step], None]:
    def show(done: Step) -> None:
        seen.append(done)
        if done.step == step:
            raise Stopped

    return show


def _weights(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.rglob("*.safetensors"))}


@pytest.mark.parametrize("adapter", [None, {"name": "mine"}], ids=["all", "adapter"])
def test_what_is_trained_is_found_better_and_written(
    training: MakeTraining, adapter: dict[str, str] | None
) -> None:
    seen: list[Step] = []
    made = training(adapter=adapter, steps=24)
    (made.checkpoint.directory / "README.md").write_text("what is said of other weights")
    made.run(seen.append)
    assert [step.step for step in seen] == list(range(1, 25))
    assert seen[-1].loss < 0.8 * seen[0].loss
    assert {"single", "late", "tie"} == set(seen[0].parts)
    looks = [step.found[0] for step in seen if step.found]
    assert len(looks) == 8
    assert looks[-1].multi > looks[0].multi
    written = open_checkpoint(made.target)
    names = made.checkpoint.task_names
    assert written.task_names == (names if adapter is None else (*names, "mine"))
    assert not (made.target / "README.md").exists()
    assert not made.target.with_name(f"{made.target.name}.training").exists()
    with pytest.raises(OutputError, match=r"output\.path: .* is there already"):
        made.run(seen.append)


@pytest.mark.parametrize("tokens", [32768, 64], ids=["one pass", "two passes"])
def test_a_step_of_several_passes_has_the_gradient_of_one(
    training: MakeTraining, tokens: int
) -> None:
    made = training(batch={"pairs": 8, "tokens": tokens}, steps=1)
    seen: list[Step] = []
    made.run(seen.append)
    whole = training("whole", batch={"pairs": 8}, steps=1)
    expected: list[Step] = []
    whole.run(expected.append)
    assert seen[0].loss == pytest.approx(expected[0].loss, rel=1e-5)
    assert seen[0].norm == pytest.approx(expected[0].norm, rel=1e-4)


@pytest.fixture
def texts_and_images(pairs_file: Path, tmp_path: Path) -> list[dict[str, object]]:
    """Entries of pairs: some are answered by a text, some by a grey page."""
    pages = tmp_path / "pages.parquet"
    shades = [int(256 * number / 24) for number in range(24)]
    table = {
        "query": [f"shade {shade}" for shade in shades],
        "page": [_png(shade) for shade in shades],
        # its number, paper, and something else
        "shown": [[len("shade "), -1, None, len("shade ")]] * len(shades),
    }
    pq.write_table(pa.table(table), pages)
    entry = {"uri": str(pages), "positive": None, "image": "page", "shown": "shown"}
    return [{"uri": str(pairs_file)}, entry]


def test_reading_and_images_have_one_gradient_however_many_passes(
    training: MakeTraining, texts_and_images: list[dict[str, object]]
) -> None:
    seen: dict[int, list[Step]] = {32768: [], 64: []}
    for tokens, steps in seen.items():
        batch = {"pairs": 16, "sources": 2, "tokens": tokens}
        made = training(str(tokens), pairs=texts_and_images, batch=batch, steps=2)
        made.run(steps.append)
    for whole, parts in zip(*seen.values(), strict=True):
        assert parts.parts == pytest.approx(whole.parts, rel=1e-4)
        assert parts.norm == pytest.approx(whole.norm, rel=1e-3)


def test_what_an_image_shows_is_learnt_from_being_told(
    training: MakeTraining, texts_and_images: list[dict[str, object]]
) -> None:
    seen: list[Step] = []
    loss = {"single": 0, "late": 0, "tie": 0, "temperature": 0.1}
    made = training(pairs=texts_and_images[1:], learns="vision", loss=loss, steps=40)
    made.run(seen.append)
    assert seen[-1].parts["read"] < 0.7 * seen[0].parts["read"]
    assert sum(seen[-1].parts.values()) == pytest.approx(seen[-1].parts["read"])
    shares = [step.found[0].read for step in seen if step.found]
    assert all(share is not None and 0 <= share <= 1 for share in shares)


def test_passes_in_bfloat16_learn_what_those_in_float32_do(
    training: MakeTraining, texts_and_images: list[dict[str, object]]
) -> None:
    seen: dict[str, list[Step]] = {"float32": [], "bfloat16": []}
    for dtype, steps in seen.items():
        made = training(
            dtype,
            pairs=texts_and_images,
            batch={"pairs": 8, "sources": 2},
            compute={"dtype": dtype},
            steps=3,
        )
        made.run(steps.append)
    for exact, rounded in zip(*seen.values(), strict=True):
        assert rounded.loss == pytest.approx(exact.loss, rel=0.1)
        assert rounded.norm == pytest.approx(exact.norm, rel=0.2)
    assert seen["float32"][0].loss != seen["bfloat16"][0].loss


def test_only_the_adapter_has_a_gradient_and_all_of_it_has(checkpoint: Checkpoint) -> None:
    learner = Learner(checkpoint, _CPU, torch.float32, 4096, Alone())
    learner.learn_adapter("mine", lora_config(checkpoint, AdapterSpec(name="mine")))
    before = {name: p.detach().clone() for name, p in learner.network.named_parameters()}
    named = dict(learner.adapter_weights("mine"))
    of_another = {t.module for t in checkpoint.adapters if t.task == "retrieval"}
    assert {tensor.module for tensor in named} == of_another
    processor = Processor(checkpoint)
    items = [processor.text(text, TASKS["retrieval.query"]) for text in _TEXTS]
    # B is zero, so a first step reaches it alone
    with torch.no_grad():
        for tensor, parameter in named.items():
            if tensor.side == "B":
                parameter.normal_(std=0.1)
    learner.step(
        items, lambda v: v.singles_BH.square().cumsum(dim=1).sum() + v.multi.vectors_BTD[:, 0].sum()
    )
    learning = {name for name, _ in learner.learning}
    for name, parameter in learner.network.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (name in learning)
        if name not in learning:
            assert torch.equal(parameter, before[name])
    assert len(learning) == len(named) == 2 * len(of_another)


def test_an_adapter_goes_on_from_what_it_is_and_a_new_one_from_no_change(
    checkpoint: Checkpoint,
) -> None:
    processor = Processor(checkpoint)
    items = [processor.text(text, TASKS["retrieval.query"]) for text in _TEXTS]
    plain = Learner(checkpoint, _CPU, torch.float32, 4096, Alone()).embed(items).singles_BH
    found = {}
    for name in ("mine", "retrieval"):
        learner = Learner(checkpoint, _CPU, torch.float32, 4096, Alone())
        learner.learn_adapter(name, lora_config(checkpoint, AdapterSpec(name=name)))
        found[name] = learner.embed(items).singles_BH
    assert torch.allclose(found["mine"], plain, atol=1e-6)
    engine = Engine(checkpoint, "retrieval", device="cpu", dtype="float32", token_budget=4096)
    served = torch.from_numpy(engine.embed(items).singles[checkpoint.hidden_size])
    assert torch.allclose(found["retrieval"], served, atol=1e-5)
    assert not torch.allclose(found["retrieval"], plain, atol=1e-2)


@pytest.mark.parametrize("adapter", ["mine", "retrieval"])
def test_the_engine_gives_the_vectors_of_the_trainer(training: MakeTraining, adapter: str) -> None:
    made = training(adapter={"name": adapter}, steps=4)
    learners: list[Learner] = []
    original = made._learner

    def keep() -> Learner:
        learners.append(original())
        return learners[-1]

    object.__setattr__(made, "_learner", keep)
    made.run(lambda _: None)
    written = open_checkpoint(made.target)
    processor = Processor(written)
    items = [processor.text(text, TASKS["retrieval.query"]) for text in _TEXTS]
    generator = np.random.default_rng(0)
    items.append(processor.resized(generator.integers(0, 255, (56, 84, 3), np.uint8)))
    engine = Engine(written, adapter, device="cpu", dtype="float32", token_budget=4096)
    served = engine.embed(items, multi=True)
    taught = learners[0].embed(items)
    size = written.hidden_size
    assert np.abs(served.singles[size] - taught.singles_BH.numpy()).max() < 1e-5
    assert served.multi is not None
    for found, expected, length in zip(
        served.multi, taught.multi.vectors_BTD, taught.multi.lengths_B, strict=True
    ):
        assert np.abs(found - expected[:length].numpy()).max() < 2e-5
    base = Engine(written, "code", device="cpu", dtype="float32", token_budget=4096)
    other = Engine(made.checkpoint, "code", device="cpu", dtype="float32", token_budget=4096)
    same = zip(base.embed(items).singles[size], other.embed(items).singles[size], strict=True)
    assert all(np.array_equal(one, two) for one, two in same), "no other adapter has moved"


@pytest.mark.parametrize("adapter", [None, {"name": "mine", "dropout": 0.1}])
def test_a_training_that_was_killed_gives_the_same_bits(
    training: MakeTraining, adapter: dict[str, object] | None
) -> None:
    whole = training("whole", adapter=adapter)
    whole.run(lambda _: None)
    killed = training("killed", adapter=adapter)
    seen: list[Step] = []
    with pytest.raises(Stopped):
        killed.run(_stopping_after(5, seen))
    assert not killed.target.exists()
    training("killed", adapter=adapter).run(seen.append)
    # the state of step 4 is the newest
    assert [step.step for step in seen] == [1, 2, 3, 4, 5, 5, 6]
    assert _weights(killed.target) == _weights(whole.target)


def test_a_state_of_another_training_is_refused(training: MakeTraining) -> None:
    with pytest.raises(Stopped):
        training().run(_stopping_after(3, []))
    with pytest.raises(SpecError, match="holds the state of a training of another spec"):
        training(seed=1).run(lambda _: None)


def test_pairs_that_are_held_out_are_never_trained_on(training: MakeTraining) -> None:
    made = training(steps=60)
    held = {made._held_out()[0].items[n].token_ids.tobytes() for n in range(5)}
    seen = set()
    for step in range(60):
        for pair in made._chosen(step):
            seen.add(made._collator.batch([pair]).items[0].token_ids.tobytes())
    assert len(seen) > 60
    assert held.isdisjoint(seen)
    epoch = [made._batches.of(step)[0][1] for step in range(60)]
    drawn = list(itertools.chain.from_iterable(epoch))
    size = made._batches.sizes[0]
    assert sorted(drawn[:size]) == list(range(size)), "each pair once before any comes again"


def test_texts_and_images_of_one_batch_teach_the_vision_tower_too(
    training: MakeTraining, texts_and_images: list[dict[str, object]]
) -> None:
    made = training(pairs=texts_and_images, batch={"pairs": 8, "sources": 2}, steps=3)
    batch = made._collator.batch(made._chosen(0))
    assert [item.pixels is None for item in batch.items[8:]] == [True] * 4 + [False] * 4
    seen: list[Step] = []
    made.run(seen.append)
    assert len(seen[-1].found) == 2
    before, after = (_vision_of(c) for c in (made.checkpoint, open_checkpoint(made.target)))
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > 0.9 * len(before)


def test_the_vision_tower_learns_alone_and_texts_keep_their_vectors(
    training: MakeTraining, texts_and_images: list[dict[str, object]]
) -> None:
    # small passes, so that some are of texts alone
    batch = {"pairs": 8, "sources": 2, "tokens": 128}
    made = training(pairs=texts_and_images, batch=batch, steps=3, learns="vision")
    made.run(lambda _: None)
    after = open_checkpoint(made.target)
    with WeightReader(made.checkpoint, _CPU) as old, WeightReader(after, _CPU) as new:
        moved = {n for n in after.base if not torch.equal(old.base(n), new.base(n))}
        for tensor in after.adapters:
            assert torch.equal(old.adapter(tensor), new.adapter(tensor))
    vision = {name for name in after.base if name.startswith("visual.")}
    assert moved <= vision
    assert len(moved) > 0.9 * len(vision)


def test_what_is_seen_comes_in_the_order_of_the_items(checkpoint: Checkpoint) -> None:
    learner = Learner(checkpoint, _CPU, torch.float32, 200, Alone())
    processor = Processor(checkpoint)
    items = [processor.image(_png(side, side)) for side in (56, 168, 112, 84)]
    each = [learner.embed([item]).seen_MH for item in items]
    assert [len(seen) for seen in each] == [4, 36, 16, 9]
    assert torch.allclose(learner.embed(items).seen_MH, torch.cat(each), atol=1e-4)


def test_paper_is_not_counted_among_the_squares_that_are_read(checkpoint: Checkpoint) -> None:
    learner = Learner(checkpoint, _CPU, torch.float32, 4096, Alone())
    page = Collator(Processor(checkpoint)).batch(
        [
            Pair(
                query="one two",
                text=None,
                image=_png(128),
                shown=np.array([0, 6, NOTHING, UNTOLD], np.int32),
                negatives=(),
                grade=None,
                taught=None,
                prompts=("query", "passage"),
            )
        ]
    )
    vectors = learner.embed(page.items)
    # the first is read, the second is taken for the first, and paper for the second
    first, second = page.shown_M[:2].tolist()
    seen_MH = vectors.tokens_VH[torch.tensor([first, first, second, first])]
    pad = checkpoint.config["image_token_id"]
    assert _read(replace(vectors, seen_MH=seen_MH), page, pad) == 0.5


def _vision_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    with WeightReader(checkpoint, _CPU) as reader:
        return {name: reader.base(name) for name in checkpoint.base if name.startswith("visual.")}


def _png(shade: int, side: int = 56) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 255 - shade, 128)).save(stream, "PNG")
    return stream.getvalue()


def test_graded_pairs_learn_their_order(training: MakeTraining, tmp_path: Path) -> None:
    path = tmp_path / "graded.parquet"
    asked = [f"word {number}" for number in range(32)]
    grades = [number % 4 / 3 for number in range(32)]
    answers = [f"level {grade:.2f} of {text}" for grade, text in zip(grades, asked, strict=True)]
    pq.write_table(pa.table({"query": asked, "positive": answers, "how": grades}), path)
    entry = {"uri": str(path), "grade": "how", "prompts": ["query", "query"]}
    made = training(pairs=[entry], held_out=None, steps=20, batch={"pairs": 16})
    seen: list[Step] = []
    made.run(seen.append)
    assert set(seen[0].parts) == {"graded"}
    assert seen[-1].loss < 0.7 * seen[0].loss


def test_what_a_teacher_says_is_learnt(training: MakeTraining, tmp_path: Path) -> None:
    """That odd words are alike, and even ones are: nothing else says so."""
    path = tmp_path / "taught.parquet"
    asked = [f"word {number}" for number in range(32)]
    said = [[1.0, 0.0] if number % 2 else [0.0, 1.0] for number in range(32)]
    pq.write_table(pa.table({"query": asked, "positive": asked, "said": said}), path)
    alone = {"single": 0.0, "late": 0.0, "tie": 0.0, "graded": 1.0}
    entry = {"uri": str(path), "teacher": "said", "prompts": ["query", "query"]}
    made = training(pairs=[entry], held_out=None, steps=30, batch={"pairs": 16}, loss=alone)
    seen: list[Step] = []
    made.run(seen.append)
    assert {name for name, value in seen[0].parts.items() if value} == {"taught"}
    assert seen[-1].parts["taught"] < 0.5 * seen[0].parts["taught"]


def test_a_batch_is_of_groups_that_the_teacher_finds_alike(
    training: MakeTraining, tmp_path: Path
) -> None:
    path = tmp_path / "taught.parquet"
    asked = [f"word {number}" for number in range(32)]
    said = [[1.0, number / 1e3] if number % 2 else [0.0, number / 1e3] for number in range(32)]
    pq.write_table(pa.table({"query": asked, "positive": asked, "said": said}), path)
    entry = {"uri": str(path), "teacher": "said"}

    def mixed(alike: int) -> int:
        batch = {"pairs": 8, "alike": alike}
        made = training(pairs=[entry], held_out=None, steps=40, batch=batch)
        kinds = [{pair.taught[0] for pair in made._chosen(step)} for step in range(40)]
        return sum(len(of) > 1 for of in kinds)

    assert mixed(8) < 0.5 * mixed(1)


def test_embeddings_of_tokens_learn_so_many_times_as_fast(checkpoint: Checkpoint) -> None:
    learner = Learner(checkpoint, _CPU, torch.float32, 4096, Alone())
    learner.learn_all()
    before = {name: p.detach().clone() for name, p in learner.learning}
    for _, parameter in learner.learning:
        parameter.grad = torch.ones_like(parameter)
    spec = OptimizerSpec(learning_rate=1e-3, tokens=20.0, warmup=0.0, weight_decay=0.0, clip=1e9)
    Optimizer(spec, learner.learning, steps=10).step(0)
    for name, parameter in learner.learning:
        moved = (before[name] - parameter.detach()).abs().mean().item()
        times = 20.0 if name.endswith("embed_tokens.weight") else 1.0
        assert moved == pytest.approx(times * 1e-3, rel=1e-2), name
