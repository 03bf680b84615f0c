"""The names and shapes of every tensor in the official files, as one table.

The real files mix two spellings: the base uses the old one (`model.layers.*`, `visual.*`), the
adapters the new one (`model.language_model.layers.*`). Both are read on both files; inside
Nightjar a tensor has the name of its module in the stock `Qwen2_5_VLModel` (`language_model.*`,
`visual.*`), plus `multi_vector_projector.*`. Loading demands exact coverage of this table, since
the library's own loaders only warn and then serve random or bare weights. The random checkpoint is
written from the same table, in its order.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import CheckpointError

Shape = tuple[int, ...]

PROJECTOR = "multi_vector_projector"

_TIED = "lm_head.weight"
_ADAPTER_KEY = re.compile(
    r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.(?P<task>[^.]+)\.weight$"
)
_RESPELLINGS = (
    ("model.language_model.", "language_model."),
    ("model.visual.", "visual."),
    ("model.", "language_model."),
)


@dataclass(frozen=True, kw_only=True, order=True)
class AdapterTensor:
    """Which tensor of which adapter a key names."""

    task: str
    """The adapter: `retrieval`, `text-matching` or `code`."""
    module: str
    """The linear module it changes, in canonical spelling."""
    side: str
    """`A` ([rank, in]) or `B` ([out, rank])."""


def canonical_module(name: str) -> str:
    """The canonical spelling of a module or parameter name."""
    for old, new in _RESPELLINGS:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def canonical_base_key(key: str) -> str | None:
    """The canonical name of a base key; None for the output head, which embedding never uses."""
    return None if key == _TIED else canonical_module(key)


def parse_adapter_key(key: str) -> AdapterTensor | None:
    """What an adapter key names; None when it is not of the official form."""
    match = _ADAPTER_KEY.match(key)
    if match is None:
        return None
    # the old spelling of an adapter is `base_model.model.model.layers...`, of the projector
    # `base_model.model.multi_vector_projector`: what follows the wrapper is a base spelling
    module = canonical_module(match["module"])
    return AdapterTensor(task=match["task"], module=module, side=match["side"])


def official_base_key(name: str) -> str:
    """The key of a base tensor in the official files, which spell it the old way."""
    inner = name.removeprefix("language_model.")
    return name if inner == name else f"model.{inner}"


def official_adapter_key(tensor: AdapterTensor) -> str:
    """The key of an adapter tensor in the official file, which spells it the new way."""
    module = _official_module(tensor.module)
    return f"base_model.model.{module}.lora_{tensor.side}.{tensor.task}.weight"


def _official_module(module: str) -> str:
    """A module as the adapters' official file spells it, in its keys and in target_modules."""
    return f"model.{module}" if module.startswith(("language_model.", "visual.")) else module


TOKENS = "language_model.embed_tokens.weight"
"""The embeddings of all tokens."""


def base_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Canonical name -> shape of every base tensor, projector included.

    Args:
        config: the parsed config.json, flat as the official one or with a `text_config`.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    hidden, mlp = text["hidden_size"], text["intermediate_size"]
    head = hidden // text["num_attention_heads"]
    kv = text["num_key_value_heads"] * head
    shapes = _vision_shapes(config["vision_config"])
    shapes[TOKENS] = (text["vocab_size"], hidden)
    for layer in range(text["num_hidden_layers"]):
        at = f"language_model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.q_proj.bias": (hidden,),
            f"{at}.self_attn.k_proj.weight": (kv, hidden),
            f"{at}.self_attn.k_proj.bias": (kv,),
            f"{at}.self_attn.v_proj.weight": (kv, hidden),
            f"{at}.self_attn.v_proj.bias": (kv,),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (mlp, hidden),
            f"{at}.mlp.up_proj.weight": (mlp, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, mlp),
        }
    shapes["language_model.norm.weight"] = (hidden,)
    projector = config["multi_vector_projector_dim"]
    return shapes | {
        f"{PROJECTOR}.weight": (projector, hidden),
        f"{PROJECTOR}.bias": (projector,),
    }


def _vision_shapes(vision: Mapping[str, Any]) -> dict[str, Shape]:
    width, mlp, out = vision["hidden_size"], vision["intermediate_size"], vision["out_hidden_size"]
    patch, temporal = vision["patch_size"], vision["temporal_patch_size"]
    merged = width * vision["spatial_merge_size"] ** 2
    shapes: dict[str, Shape] = {
        "visual.patch_embed.proj.weight": (width, 3, temporal, patch, patch),
    }
    for block in range(vision["depth"]):
        at = f"visual.blocks.{block}"
        shapes |= {
            f"{at}.norm1.weight": (width,),
            f"{at}.norm2.weight": (width,),
            f"{at}.attn.qkv.weight": (3 * width, width),
            f"{at}.attn.qkv.bias": (3 * width,),
            f"{at}.attn.proj.weight": (width, width),
            f"{at}.attn.proj.bias": (width,),
            f"{at}.mlp.gate_proj.weight": (mlp, width),
            f"{at}.mlp.gate_proj.bias": (mlp,),
            f"{at}.mlp.up_proj.weight": (mlp, width),
            f"{at}.mlp.up_proj.bias": (mlp,),
            f"{at}.mlp.down_proj.weight": (width, mlp),
            f"{at}.mlp.down_proj.bias": (width,),
        }
    return shapes | {
        "visual.merger.ln_q.weight": (width,),
        "visual.merger.mlp.0.weight": (merged, merged),
        "visual.merger.mlp.0.bias": (merged,),
        "visual.merger.mlp.2.weight": (out, merged),
        "visual.merger.mlp.2.bias": (out,),
    }


def targeted_modules(
    adapter_config: Mapping[str, Any], base: Mapping[str, Shape]
) -> tuple[str, ...]:
    """The linear modules that carry an adapter, by the rule of the file's own format (peft).

    A string is a regular expression over the whole module name, a list holds ends of names.
    """
    targets = adapter_config["target_modules"]
    modules = []
    for name, shape in base.items():
        module = name.removesuffix(".weight")
        if module == name or len(shape) != 2 or module.startswith("visual."):
            continue
        spelled = _official_module(module)
        if isinstance(targets, str):
            hit = re.fullmatch(targets, spelled) is not None
        else:
            hit = any(spelled == end or spelled.endswith(f".{end}") for end in targets)
        if hit:
            modules.append(module)
    return tuple(modules)


def adapter_shapes(
    base: Mapping[str, Shape], modules: Iterable[str], tasks: Iterable[str], rank: int
) -> dict[AdapterTensor, Shape]:
    """Every tensor the adapters must have: A and B of each module, for each task.

    Args:
        base: the result of `base_shapes`.
        modules: canonical names of the linear modules that carry an adapter.
        tasks: the adapters that must be there.
        rank: r of the LoRA.
    """
    shapes: dict[AdapterTensor, Shape] = {}
    for module, task in itertools.product(modules, tasks):
        rows, columns = base[f"{module}.weight"]
        shapes[AdapterTensor(task=task, module=module, side="A")] = (rank, columns)
        shapes[AdapterTensor(task=task, module=module, side="B")] = (rows, rank)
    return shapes


def demand_coverage(found: Mapping[Any, Shape], expected: Mapping[Any, Shape], what: str) -> None:
    """Refuse any missing, unexpected or wrongly shaped tensor.

    Raises:
        CheckpointError: names the first such tensor and how many there are.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    for problem, names in (("misses", missing), ("has the unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{what} {problem} tensor {_spelled(names[0])}{more}")
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise CheckpointError(
                f"{what}: tensor {_spelled(name)} has shape {list(found[name])}, expected "
                f"{list(shape)} from config.json"
            )


def _spelled(name: str | AdapterTensor) -> str:
    return official_adapter_key(name) if isinstance(name, AdapterTensor) else name
