"""The three JSON files of settings of a random checkpoint, key for key as the official ones.

They keep the traps that a loader must step around: an `auto_map` towards code that is not there,
text settings that appear twice, and `torch_dtype` where transformers 5 obeys it unasked. The names
and shapes of the tensors follow from these settings, by `layout`.
"""

from typing import Any

from pipeline.model.geometry import Geometry
from pipeline.model.new_tokenizer import special_ids, vocabulary_rows

TASK_NAMES = ("retrieval", "text-matching", "code")
"""The adapters, in the order of the official config.json."""

_PATCH, _TEMPORAL_PATCH, _MERGE, _WINDOW = 14, 2, 2, 112
"""Pixels, frames, patches and pixels: the same in every checkpoint of this family."""

_ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_REMOTE = "modeling_jina_embeddings_v4.JinaEmbeddingsV4"


def model_config(g: Geometry) -> dict[str, Any]:
    """config.json: the text settings appear twice, flat and nested, as transformers 4.5x saved."""
    ids, text = special_ids(g.vocabulary), _text_config(g)
    return text | {
        "architectures": ["JinaEmbeddingsV4Model"],
        "auto_map": {
            "AutoConfig": "configuration_jina_embeddings_v4.JinaEmbeddingsV4Config",
            "AutoModel": f"{_REMOTE}Model",
        },
        "image_token_id": ids["<|image_pad|>"],
        "matryoshka_dims": g.matryoshka_dims,
        "model_type": "qwen2_5_vl",
        "multi_vector_projector_dim": g.multi_vector_dim,
        "single_vector_pool_strategy": "mean",
        "task_names": TASK_NAMES,
        "text_config": text | {"model_type": "qwen2_5_vl_text"},
        "transformers_version": "4.52.0",
        "truncate_dim": None,
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": _vision_config(g),
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_token_id": ids["<|vision_pad|>"],
    }


def _text_config(g: Geometry) -> dict[str, Any]:
    ids = special_ids(g.vocabulary)
    unit = g.head_dim // 16  # M-RoPE: time, height and width share half a head as 2 : 3 : 3
    return {
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": g.hidden,
        "initializer_range": 0.02,
        "intermediate_size": g.intermediate,
        "max_position_embeddings": 128000,
        "max_window_layers": 70,
        "num_attention_heads": g.heads,
        "num_hidden_layers": g.layers,
        "num_key_value_heads": g.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {
            "mrope_section": [2 * unit, 3 * unit, 3 * unit],
            "rope_type": "default",
            "type": "default",
        },
        "rope_theta": 1e6,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary_rows(g.vocabulary),
    }


def _vision_config(g: Geometry) -> dict[str, Any]:
    return {
        "depth": g.vision_depth,
        "fullatt_block_indexes": g.full_attention_blocks,
        "hidden_act": "silu",
        "hidden_size": g.vision_hidden,
        "in_channels": 3,
        "in_chans": 3,
        "intermediate_size": g.vision_intermediate,
        "model_type": "qwen2_5_vl",
        "num_heads": g.vision_heads,
        "out_hidden_size": g.hidden,
        "patch_size": _PATCH,
        "spatial_merge_size": _MERGE,
        "spatial_patch_size": _PATCH,
        "temporal_patch_size": _TEMPORAL_PATCH,
        "tokens_per_second": 2,
        "torch_dtype": "bfloat16",
        "window_size": _WINDOW,
    }


def preprocessor_config(g: Geometry) -> dict[str, Any]:
    """preprocessor_config.json: how an image is resized, cut and normalised."""
    return {
        "auto_map": {"AutoProcessor": f"{_REMOTE}Processor"},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": g.max_pixels,
        "merge_size": _MERGE,
        "min_pixels": g.min_pixels,
        "patch_size": _PATCH,
        "processor_class": "JinaEmbeddingsV4Processor",
        "temporal_patch_size": _TEMPORAL_PATCH,
    }


def adapter_config(g: Geometry) -> dict[str, Any]:
    """adapters/adapter_config.json: plain LoRA on the decoder's linears and the projector."""
    projections = "|".join(_ADAPTED)
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "exclude_modules": ".*visual.*",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": g.alpha,
        "lora_bias": False,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": g.rank,
        "target_modules": f"(.*(model).*({projections}).*$|.*(multi_vector_projector).*$)",
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }
