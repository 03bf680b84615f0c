"""The spec of a training: from which checkpoint, on which pairs, for how long, to which end."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from pydantic import model_validator as validate_model

from pipeline.section import Section
from pipeline.source_spec import PlainUri
from pipeline.stores import StoreSpec

Prompt = Literal["query", "passage"]
_Share = Annotated[float, Field(ge=0, lt=1)]
_Weight = Annotated[float, Field(ge=0)]
_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"


class PairsSpec(Section):
    """Some pairs, in Parquet."""

    uri: PlainUri = Field(description="a path or object-store URL with optional globs")
    query: str = Field("query", description="the column with each pair's query, a text")
    positive: str | None = Field(
        "positive", description="the column with the text that answers it, or null"
    )
    image: str | None = Field(
        None, description="the column with the encoded image that answers it, or null"
    )
    shown: str | None = Field(
        None,
        description="the column that says, of each square of the image, which character of the "
        "query it shows, a list of numbers; or null",
    )
    negatives: str | None = Field(
        None, description="the column with a list of texts that do not answer it, or null"
    )
    grade: str | None = Field(
        None, description="the column with a number that says how close the two are, or null"
    )
    teacher: str | None = Field(
        None,
        description="the column with another model's vector of each query, a list of numbers of "
        "one length, or null",
    )
    family: str | None = Field(
        None,
        description="the column by which pairs are held out together, or null for each by itself",
    )
    prompts: list[Prompt] = Field(
        ["query", "passage"],
        min_length=2,
        max_length=2,
        description="the prompts of the query and of what answers it, each query or passage",
    )
    weight: float = Field(1.0, gt=0, description="how often it is drawn beside the others")

    @validate_model(mode="after")
    def _answers(self) -> "PairsSpec":
        if self.positive is None and self.image is None:
            raise ValueError("positive and image are both null: name at least one column")
        return self


class FreshVisionSpec(Section):
    """The vision tower of a fresh checkpoint."""

    hidden: int = Field(192, ge=1, description="a whole number, its width")
    depth: int = Field(4, ge=1, description="a whole number of blocks")
    heads: int = Field(4, ge=1, description="a whole number of attention heads")
    intermediate: int = Field(512, ge=1, description="a whole number, the width of its MLP")
    full_attention: list[Annotated[int, Field(ge=0)]] = Field(
        [1, 3], description="the blocks that look at the whole image, a list of numbers from 0"
    )
    min_pixels: int = Field(3136, ge=1, description="a whole number of pixels")
    max_pixels: int = Field(200704, ge=1, description="a whole number of pixels")


class FreshSpec(Section):
    """A checkpoint that knows nothing yet: its sizes; see `pipeline.model.geometry`."""

    hidden: int = Field(256, ge=16, description="a whole number, the width of the decoder")
    layers: int = Field(4, ge=1, description="a whole number of layers")
    heads: int = Field(4, ge=1, description="a whole number of query heads")
    kv_heads: int = Field(2, ge=1, description="a whole number of key and value heads")
    intermediate: int = Field(704, ge=1, description="a whole number, the width of the MLP")
    vocabulary: int = Field(
        16384, ge=4096, description="a whole number of rows of the embedding table, from 4096"
    )
    rank: int = Field(16, ge=1, description="a whole number, the rank of every adapter")
    matryoshka_dims: list[Annotated[int, Field(ge=1)]] = Field(
        [32, 64, 128, 256], description="sizes of single vectors, ascending to the hidden size"
    )
    multi_vector_dim: int = Field(64, ge=1, description="a whole number, the size of a token's")
    vision: FreshVisionSpec = Field(
        FreshVisionSpec(), description="{hidden, depth, heads, intermediate, ...}"
    )


def _is_fresh(value: object) -> str:
    return "fresh" if isinstance(value, dict | FreshSpec) else "path"


class AdapterSpec(Section):
    """The adapter that is trained: a new one, or one of the checkpoint's, which goes on learning.

    Its rank is the one that all adapters of the checkpoint have.
    """

    name: str = Field(
        pattern=_NAME,
        description="its name, of lower-case letters, digits and hyphens; a pool's name later",
    )
    dropout: _Share = Field(0.0, description="share of an adapter's inputs that are left out")


class BatchSpec(Section):
    """What one step looks at."""

    pairs: int = Field(64, ge=2, description="a whole number of pairs, at least 2")
    sources: int = Field(
        1, ge=1, description="a whole number of entries of pairs that one batch is drawn from"
    )
    alike: int = Field(
        1,
        ge=1,
        description="a whole number: pairs come in groups of at most so many that the teacher "
        "finds alike, where there is one; with 1 in any order",
    )
    gaps: _Share = Field(
        0.0, description="share of the words of a text that are passed over, others each time"
    )
    max_length: int = Field(
        128, ge=4, le=32768, description="a whole number of tokens that a text is cut to"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="a whole number of pixels, or null for the checkpoint's own bound"
    )
    tokens: int = Field(
        32768,
        ge=64,
        description="a whole number of tokens and image patches of one forward pass; a batch of "
        "more passes twice",
    )


class LossSpec(Section):
    """What is made small: see `pipeline.training.losses`."""

    temperature: float = Field(0.02, gt=0, description="by which cosines are divided")
    single: _Weight = Field(1.0, description="the weight of InfoNCE on single vectors")
    late: _Weight = Field(1.0, description="the weight of InfoNCE on late-interaction scores")
    tie: _Weight = Field(1.0, description="the weight of the divergence of the two")
    graded: _Weight = Field(1.0, description="the weight of CoSENT, where there are grades")
    read: _Weight = Field(
        1.0, description="the weight of reading, where it is told what an image shows"
    )
    taught: _Weight = Field(1.0, description="the weight of a teacher's word, where there is one")
    teacher_temperature: float = Field(
        0.05, gt=0, description="by which a teacher's cosines are divided"
    )
    dims: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="sizes of single vectors, or null for all matryoshka_dims"
    )


class OptimizerSpec(Section):
    """AdamW (arXiv 1711.05101), warmed up linearly, then a half cosine down to nothing."""

    learning_rate: float = Field(1e-3, gt=0, description="at its highest")
    tokens: float = Field(
        1.0, gt=0, description="how many times as fast the embeddings of tokens learn"
    )
    weight_decay: float = Field(0.01, ge=0, description="of matrices; norms and biases have none")
    warmup: _Share = Field(0.05, description="share of the steps")
    clip: float = Field(1.0, gt=0, description="the largest norm of all gradients together")


class HeldOutSpec(Section):
    """What is never trained on, and asked of the model meanwhile."""

    share: _Share = Field(0.02, description="share of the families of each entry of pairs")
    most: int = Field(1000, ge=1, description="a whole number of pairs of each entry, at most")
    every: int = Field(200, ge=1, description="a whole number of steps between two looks")


class TrainingComputeSpec(Section):
    """Where it is computed."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="auto (bfloat16 on what has instructions for it), float32 or bfloat16",
    )
    threads: int | None = Field(
        None, ge=1, description="a whole number of torch's threads on a CPU, or null for all"
    )
    workers: int = Field(
        1, ge=1, description="a whole number of workers that train together, with --address"
    )


class TrainingOutputSpec(Section):
    """Where the checkpoint goes."""

    path: str = Field(min_length=1, description="a local directory that is not there yet")
    keep_every: int = Field(
        200, ge=1, description="a whole number of steps after which a killed training goes on"
    )


class TrainSpec(Section):
    """A training."""

    name: str = Field(pattern=_NAME, description="of the training, in lower case")
    model: Annotated[
        Annotated[PlainUri, Tag("path")] | Annotated[FreshSpec, Tag("fresh")],
        Discriminator(_is_fresh),
    ] = Field(
        description="the checkpoint it begins from (a local directory, an object-store URL or a "
        "hub id), or the sizes of a fresh one"
    )
    adapter: AdapterSpec | None = Field(
        None,
        description="{name, dropout}, or null to train the backbone and both heads",
    )
    learns: Literal["all", "vision"] = Field(
        "all",
        description="all weights, or the vision tower alone, to the vectors that texts have; an "
        "adapter learns by itself",
    )
    pairs: list[PairsSpec] = Field(min_length=1, description="a list of pairs")
    steps: int = Field(1000, ge=1, description="a whole number of steps, at least 1")
    seed: int = Field(0, ge=0, description="a whole number; the same one gives the same batches")
    batch: BatchSpec = Field(BatchSpec(), description="{pairs, sources, max_length, ...}")
    loss: LossSpec = Field(LossSpec(), description="{temperature, single, late, tie, ...}")
    optimizer: OptimizerSpec = Field(OptimizerSpec(), description="{learning_rate, ...}")
    held_out: HeldOutSpec | None = Field(HeldOutSpec(), description="{share, most, every}, or null")
    compute: TrainingComputeSpec = Field(
        TrainingComputeSpec(), description="{device, dtype, threads, ...}"
    )
    output: TrainingOutputSpec = Field(description="{path, keep_every}")
    storage: list[StoreSpec] = Field(
        [], description="a list of object stores and how to reach them"
    )

    @validate_model(mode="after")
    def _fits(self) -> "TrainSpec":
        if self.batch.sources > len(self.pairs):
            raise ValueError(
                f"batch.sources: {self.batch.sources}, but there are {len(self.pairs)} of pairs"
            )
        loss = self.loss
        reads = loss.read and any(entry.shown for entry in self.pairs)
        if not (loss.single or loss.late or loss.graded or reads):
            raise ValueError(
                "loss: single, late and graded are all 0, and no pairs.shown is there to be read: "
                "nothing would be learnt"
            )
        if self.adapter is not None and self.learns != "all":
            raise ValueError(
                f"learns: {self.learns}, but an adapter learns by itself; leave one of the two out"
            )
        if self.adapter is not None and isinstance(self.model, FreshSpec):
            raise ValueError(
                "adapter: a fresh model knows nothing yet; train its backbone first, and the "
                "adapter on that"
            )
        return self
