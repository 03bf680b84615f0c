"""The oracle against what else there is: transformers' own processor, its tokenizer, the formulas.

A referee has to be checked too. None of these tests touches the engine.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pipeline.model.geometry import TINY
from pipeline.model.random_checkpoint import write_random_checkpoint
from tests.model.oracle import Oracle
from tests.model.parity_items import SMALL_MAX_PIXELS, TEXTS, picture


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    directory = tmp_path_factory.mktemp("oracle") / "tiny"
    write_random_checkpoint(directory, TINY)
    return Oracle(directory)


def by_transformers(oracle: Oracle, image: Image.Image) -> tuple[np.ndarray, tuple[int, ...]]:
    """Pixel values and grid of transformers' own PIL processor with the checkpoint's settings."""
    processor = Qwen2VLImageProcessorPil(
        image_mean=oracle.pixels["image_mean"],
        image_std=oracle.pixels["image_std"],
        size={"shortest_edge": oracle.pixels["min_pixels"], "longest_edge": SMALL_MAX_PIXELS},
    )
    batch = processor(images=[image], return_tensors="np")
    return batch["pixel_values"], tuple(batch["image_grid_thw"][0].tolist())


def test_pixel_values_are_those_of_transformers_when_no_resize_is_needed(oracle: Oracle) -> None:
    image = picture(112, 168)
    ours, grid = oracle.pixel_values(image, SMALL_MAX_PIXELS)
    theirs, their_grid = by_transformers(oracle, image)
    assert grid == their_grid
    # Only the order of scale and shift differs: rounding of values of size 2.
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "height"), [(98, 70), (317, 203), (9, 5), (1, 1), (460, 7), (11, 300), (1, 150)]
)
def test_resized_pixel_values_differ_from_transformers_only_as_pil_differs_from_torch(
    oracle: Oracle, width: int, height: int
) -> None:
    image = picture(width, height)
    ours, grid = oracle.pixel_values(image, SMALL_MAX_PIXELS)
    theirs, their_grid = by_transformers(oracle, image)
    assert grid == their_grid
    # One step of 255 is 0.015 here. PIL rounds its kernel, and rounds once more between its two
    # passes: single pixels move by up to 20 steps, the mean stays under one.
    difference = np.abs(ours.numpy() - theirs)
    assert difference.max() < 21 * 0.015
    assert difference.mean() < 0.015


@pytest.mark.parametrize("name", TEXTS)
def test_text_ids_are_those_of_transformers_with_special_tokens_split(
    oracle: Oracle, name: str
) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(oracle.directory / "tokenizer.json"))
    ids, truncated = oracle.text_ids(TEXTS[name])
    assert ids == tokenizer(TEXTS[name], split_special_tokens=True)["input_ids"]
    assert not truncated


def test_an_image_prompt_is_one_start_the_pads_and_one_end(oracle: Oracle) -> None:
    ids = oracle.image_ids((1, 4, 6))
    pad = oracle.model.config.image_token_id
    start = ids.index(oracle.model.config.vision_start_token_id)
    assert ids[start + 1 : start + 7] == [pad] * 6
    assert ids[start + 7] == oracle.tokenizer.token_to_id("<|vision_end|>")
    assert ids.count(pad) == 6


def test_image_positions_follow_the_written_formula(oracle: Oracle) -> None:
    # Text counts up; pad (y, x) sits at (s, s + y, s + x); what follows starts at s + longer side.
    ids = torch.tensor([oracle.image_ids((1, 4, 6))])
    kinds = (ids == oracle.model.config.image_token_id).int()
    positions, _ = oracle.model.get_rope_index(ids, kinds, image_grid_thw=torch.tensor([[1, 4, 6]]))
    s = ids[0].tolist().index(oracle.model.config.image_token_id)
    pads = [(s, s + y, s + x) for y in range(2) for x in range(3)]
    after = [(p, p, p) for p in range(s + 3, s + 3 + ids.shape[1] - s - 6)]
    expected = [(p, p, p) for p in range(s)] + pads + after
    assert positions[:, 0].T.tolist() == [list(p) for p in expected]


def test_a_token_sees_all_before_it_and_nothing_after_it(oracle: Oracle) -> None:
    # Guards against a mask that transformers would guess from the positions it is given.
    whole = oracle.embed("1 2 3", "retrieval.query")
    other_end = oracle.embed("1 2 4", "retrieval.query")
    other_start = oracle.embed("1 2 3", "retrieval.passage")
    np.testing.assert_allclose(whole.multi[:-1], other_end.multi[:-1], atol=1e-6)
    assert np.abs(whole.multi[-1] - other_end.multi[-1]).max() > 1e-3
    assert np.abs(whole.multi[-1] - other_start.multi[-1]).max() > 1e-3


def test_the_end_of_an_image_prompt_sees_every_patch(oracle: Oracle) -> None:
    dark = Image.new("RGB", (112, 112))
    lit = dark.copy()
    lit.putpixel((0, 0), (255, 255, 255))
    before = oracle.embed(dark, "retrieval.query").multi
    after = oracle.embed(lit, "retrieval.query").multi
    assert np.abs(before[-1] - after[-1]).max() > 1e-5
    np.testing.assert_array_equal(before[0], after[0])


def test_lora_beside_a_linear_equals_lora_merged_into_it(oracle: Oracle) -> None:
    lora = oracle.projector_lora
    lora.active = "code"
    pair = lora.pairs["code"]
    x = torch.randn(5, lora.linear.in_features, generator=torch.Generator().manual_seed(0))
    merged = lora.linear.weight + lora.scale * pair["B"] @ pair["A"]
    expected = x @ merged.T + lora.linear.bias
    torch.testing.assert_close(lora(x), expected, rtol=0, atol=2e-5)


def rms(x_TD: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    return x_TD * torch.rsqrt((x_TD**2).mean(dim=-1, keepdim=True) + 1e-6) * weight_D


def rotated(x_TNH: torch.Tensor, positions_3T: torch.Tensor, sections: list[int]) -> torch.Tensor:
    """M-RoPE: frequency i of a head turns with the axis its section belongs to."""
    half = x_TNH.shape[-1] // 2
    frequencies = 1e6 ** -(torch.arange(half) / half)
    axis_of = torch.repeat_interleave(torch.arange(3), torch.tensor(sections))
    angles_TH = (positions_3T[axis_of].T * frequencies)[:, None]
    left, right = x_TNH[..., :half], x_TNH[..., half:]
    cos, sin = angles_TH.cos(), angles_TH.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def decoder_by_hand(oracle: Oracle, x_TD: torch.Tensor, positions_3T: torch.Tensor) -> torch.Tensor:
    """The decoder written out, for one item; only linears and norm weights are the oracle's."""
    text = oracle.model.config.text_config
    length, heads, shared = len(x_TD), text.num_attention_heads, text.num_key_value_heads
    size = text.hidden_size // heads
    sections = [size // 8, 3 * size // 16, 3 * size // 16]
    for layer in oracle.model.language_model.layers:
        seen, at = rms(x_TD, layer.input_layernorm.weight), layer.self_attn
        q = rotated(at.q_proj(seen).view(length, heads, size), positions_3T, sections)
        k = rotated(at.k_proj(seen).view(length, shared, size), positions_3T, sections)
        v = at.v_proj(seen).view(length, shared, size)
        k, v = (t.repeat_interleave(heads // shared, dim=1) for t in (k, v))
        scores = torch.einsum("qnh,knh->nqk", q, k) / size**0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
        x_TD = x_TD + at.o_proj(torch.einsum("nqk,knh->qnh", weights, v).reshape(length, -1))
        seen, mlp = rms(x_TD, layer.post_attention_layernorm.weight), layer.mlp
        gate = mlp.gate_proj(seen)
        x_TD = x_TD + mlp.down_proj(gate * gate.sigmoid() * mlp.up_proj(seen))
    return rms(x_TD, oracle.model.language_model.norm.weight)


@torch.inference_mode()
def test_the_stock_decoder_is_configured_as_the_written_formulas_say(oracle: Oracle) -> None:
    # Engine and oracle both build stock classes: a config key that transformers came to read
    # otherwise (theta, the sections, eps) would fool both, and only this test.
    for item in ("The nightjar 1 2 3", picture(112, 84)):
        right = oracle.embed(item, "code.query")
        if isinstance(item, str):
            ids = oracle.text_ids("Query: " + item)[0]
            x_TD = oracle.model.get_input_embeddings()(torch.tensor(ids))
            positions_3T = torch.arange(len(ids)).expand(3, -1)
        else:
            pixels, grid = oracle.pixel_values(item)
            ids = torch.tensor(oracle.image_ids(grid))
            is_pad = ids == oracle.model.config.image_token_id
            x_TD = oracle.model.get_input_embeddings()(ids)
            x_TD[is_pad] = oracle.model.visual(pixels, grid_thw=torch.tensor([grid])).pooler_output
            positions_3T = oracle.model.get_rope_index(
                ids[None], is_pad[None].int(), image_grid_thw=torch.tensor([grid])
            )[0][:, 0]
        hidden_TD = decoder_by_hand(oracle, x_TD, positions_3T)
        multi = torch.nn.functional.normalize(oracle.projector_lora(hidden_TD), dim=-1)
        np.testing.assert_allclose(multi.numpy(), right.multi, rtol=0, atol=5e-6)


def test_the_vision_tower_is_configured_as_the_official_one(oracle: Oracle) -> None:
    vision = oracle.model.config.vision_config
    assert (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size) == (14, 2, 2)
    assert vision.window_size == 112
    assert list(vision.fullatt_block_indexes) == list(TINY.full_attention_blocks)
    size = vision.hidden_size // vision.num_heads
    frequencies = 1e4 ** -(torch.arange(0, size // 2, 2) / (size // 2))
    torch.testing.assert_close(oracle.model.visual.rotary_pos_emb.inv_freq, frequencies)
