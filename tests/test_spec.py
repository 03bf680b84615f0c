"""The job spec: one clear sentence for each mistake, and a fingerprint of what decides a vector."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.errors import SpecError
from pipeline.spec import json_schema
from pipeline.spec_file import load_spec

EXAMPLE = """
name: docs-nightly
model:
  path: ./checkpoints/tiny          # local directory, object-store URL, or hub id
  max_length: 32768
  max_pixels: null                  # null: the checkpoint's own bound
  dtype: auto                       # auto | float32 | bfloat16
source:
  uri: s3://bucket/docs/*.parquet   # one or a list; globs; local paths too
  format: parquet                   # parquet | webdataset | images | jsonl
  id: doc_id
  text: body
  image: page
  task: retrieval.passage           # one of the five, or {column: task}
  keep: [title, url]                # columns carried to the output unchanged
output:
  uri: s3://bucket/embeddings/docs
  single: {dim: 2048, dtype: float32}     # or null; dim null: the checkpoint's full size
  multi: {dtype: float16}                  # or null
compute:
  token_budget: auto
  pools: {retrieval: {min: 1, max: 4, gpus: 1}}
"""

TASKS = "retrieval.query, retrieval.passage, code.query, code.passage, text-matching"
ABSENT = object()


def _write(directory: Path, content: str | bytes) -> Path:
    path = directory / "job.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _with(key: str, value: object) -> dict[str, Any]:
    """The example with one key set, or removed for ABSENT."""
    raw: Any = yaml.safe_load(EXAMPLE)
    node = raw
    *parents, last = key.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    if value is ABSENT:
        del node[last]
    else:
        node[last] = value
    return raw


def _refusal(directory: Path, content: str | bytes, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(_write(directory, content), overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_the_example_of_the_issue_is_read_as_written(tmp_path: Path) -> None:
    spec = load_spec(_write(tmp_path, EXAMPLE))
    assert spec.name == "docs-nightly"
    assert spec.sources[0].uris == ("s3://bucket/docs/*.parquet",)
    assert spec.sources[0].keep == ["title", "url"]
    assert spec.output.single is not None
    assert (spec.output.single.dim, spec.output.single.dtype) == (2048, "float32")
    assert spec.output.multi is not None
    assert spec.output.multi.dtype == "float16"
    pool = spec.compute.pools["retrieval"]
    assert (pool.min, pool.max, pool.gpus) == (1, 4, 1.0)


MISTAKES = [
    # key set, value, the path in the sentence, what the sentence says was expected
    ("name", "Docs Nightly", "name", "lower-case letters, digits, - and _"),
    ("name", "", "name", "lower-case letters"),
    ("name", 7, "name", "lower-case letters"),
    ("name", ABSENT, "name", "is missing; expected lower-case letters"),
    ("model", ABSENT, "model", "is missing; expected the checkpoint"),
    ("model", "./tiny", "model", "the checkpoint"),
    ("model.path", "", "model.path", "a local directory, an object-store URL, or a hub id"),
    ("model.path", ABSENT, "model.path", "is missing; expected a local directory"),
    ("model.pth", "x", "model.pth", "did you mean 'path'"),
    ("model.max_length", 32769, "model.max_length", "from 1 to 32768"),
    ("model.max_length", "512", "model.max_length", "from 1 to 32768"),
    ("model.max_length", True, "model.max_length", "from 1 to 32768"),
    ("model.max_pixels", -1, "model.max_pixels", "a whole number of pixels, or null"),
    ("model.max_pixels", 1.5, "model.max_pixels", "a whole number of pixels, or null"),
    ("model.dtype", "float16", "model.dtype", "auto, float32 or bfloat16"),
    ("source.uri", ABSENT, "source.uri", "is missing; expected a path or object-store URL"),
    ("source.uri", 3, "source.uri", "a path or object-store URL"),
    ("source.uri", ["a", 3], "source.uri.1", "a path or object-store URL"),
    ("source.format", "csv", "source.format", "parquet, webdataset, images or jsonl"),
    ("source.id", None, "source.id", "needs the column with each row's id"),
    ("source.task", "retrieval", "source.task", TASKS),
    ("source.task", None, "source.task", TASKS),
    ("source.task", {}, "source.task.column", "is missing; expected the name of the column"),
    ("source.keep", "title", "source.keep", "a list of columns"),
    ("source.keep", ["a", "b", "a"], "source.keep", "'a' is there twice"),
    ("source.kep", ["a"], "source.kep", "did you mean 'keep'"),
    ("source.image_hosts", "images.test", "source.image_hosts", "a list of host names"),
    ("source.image_hosts", ["a.test", "B.test"], "source.image_hosts.1", "in lower case"),
    ("source.image_hosts", ["127.0.0.1"], "source.image_hosts.0", "a list of host names"),
    ("source.image_hosts", ["localhost"], "source.image_hosts.0", "a list of host names"),
    ("source.image_hosts", ["https://a.test"], "source.image_hosts.0", "a list of host names"),
    ("source.image_hosts", ["*.a.test"], "source.image_hosts.0", "a list of host names"),
    ("limits", {"image_pixels": 0}, "limits.image_pixels", "the largest image that is decoded"),
    ("limits", {"image_pixels": 10**9}, "limits.image_pixels", "at most 178956970"),
    ("limits", {"decode_seconds": 0.5}, "limits.decode_seconds", "a whole number of CPU seconds"),
    ("limits", {"decode_memory": 4096}, "limits.decode_memory", "at least 1048576"),
    ("output.uri", "", "output.uri", "a path or object-store URL of the dataset"),
    ("output.single", {"dim": 0}, "output.single.dim", "one of the checkpoint's matryoshka_dims"),
    ("output.single", {"dim": [2048, 0]}, "output.single.dim.1", "matryoshka_dims"),
    ("output.single", {"dim": []}, "output.single.dim", "a list of them for a column each"),
    ("output.single", {"dim": [256, 128, 256]}, "output.single.dim", "256 is there twice"),
    ("output.single", {"dtype": "int8"}, "output.single.dtype", "float32 or float16"),
    ("output.multi", {"dtype": "bfloat16"}, "output.multi.dtype", "float32 or float16"),
    ("output.multi", {"dim": 128}, "output.multi.dim", "the keys here are dtype"),
    ("output.multi", "float16", "output.multi", "{dtype}, or null"),
    ("compute.token_budget", 0, "compute.token_budget", "a whole number of tokens"),
    ("compute.token_budget", "much", "compute.token_budget", "a whole number of tokens"),
    ("compute.compile", "always", "compute.compile", "true or false"),
    ("compute.pools", {"search": {}}, "compute.pools", "retrieval, code, text-matching"),
    ("compute.pools", {"code": {"min": 0}}, "compute.pools.code.min", "at least 1"),
    ("compute.pools", {"code": {"gpus": -1}}, "compute.pools.code.gpus", "a fraction allowed"),
    ("compute.pools", {"code": {"min": 3, "max": 2}}, "compute.pools.code.max", "below min, 3"),
    ("compute.pools", {"code": {"mni": 1}}, "compute.pools.code.mni", "did you mean 'min'"),
    ("sources", {"uri": "x"}, "sources", "did you mean 'source'"),
    ("zebra", 1, "zebra", "the keys here are name, model, source, output, storage, compute"),
]


@pytest.mark.parametrize(("key", "value", "place", "expected"), MISTAKES)
def test_a_mistake_is_one_sentence_with_path_value_and_expectation(
    tmp_path: Path, key: str, value: object, place: str, expected: str
) -> None:
    sentence = _refusal(tmp_path, yaml.safe_dump(_with(key, value)))
    assert sentence.startswith(place), sentence
    assert sentence[len(place)] in ": .", sentence
    assert expected in sentence
    leaf = value
    while isinstance(leaf, dict | list) and leaf:
        leaf = list(leaf.values())[-1] if isinstance(leaf, dict) else leaf[-1]
    if "unknown key" in sentence:
        # it may be a secret under a misspelt key
        assert repr(leaf) not in sentence
    elif not (value is ABSENT or leaf == {} or "needs the column" in expected):
        assert repr(leaf) in sentence or str(leaf) in sentence


def test_an_unknown_key_beside_a_routing_column_is_named(tmp_path: Path) -> None:
    raw = _with("source.task", {"column": "k", "colour": "t"})
    assert _refusal(tmp_path, yaml.safe_dump(raw)).startswith("source.task.colour: unknown key")


def test_nothing_to_write_and_nothing_to_embed_are_refused(tmp_path: Path) -> None:
    raw = _with("output.single", None)
    raw["output"]["multi"] = None
    assert _refusal(tmp_path, yaml.safe_dump(raw)).startswith("output.single and multi are both")
    raw = _with("source.text", None)
    raw["source"]["image"] = None
    assert "text and image are both null" in _refusal(tmp_path, yaml.safe_dump(raw))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "name"}, "source.id: 'name', but the id in images sources is the relative path"),
        ({"text": "caption"}, "source.text: 'caption', but a folder of images has no columns"),
        ({"keep": ["a"]}, "source.keep: ['a'], but a folder of images has no columns"),
        ({"task": {"column": "t"}}, "source.task: column 't', but a folder of images"),
        ({"format": "webdataset", "id": "x"}, "source.id: 'x', but the id in webdataset"),
        ({"image_hosts": ["a.test"]}, "source.image_hosts: ['a.test'], but only the image column"),
    ],
)
def test_a_key_that_does_not_fit_the_format_is_refused(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    raw = _with("source", {"uri": "x", "format": "images", "task": "code.query", **changes})
    assert expected.replace("a images", "") in _refusal(tmp_path, yaml.safe_dump(raw)).replace(
        "a images", ""
    )


def test_a_mistake_in_a_list_of_sources_names_its_place(tmp_path: Path) -> None:
    raw = yaml.safe_load(EXAMPLE)
    bad = {**copy.deepcopy(raw["source"]), "format": "csv"}
    raw["source"] = [raw["source"], bad]
    assert _refusal(tmp_path, yaml.safe_dump(raw)).startswith("source.1.format: 'csv'")
    raw["source"] = []
    assert _refusal(tmp_path, yaml.safe_dump(raw)) == "source: the list is empty"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: a\nname: b\n", "line 2: key 'name' is there twice"),
        ("model:\n  path: a\n  path: b\n", "line 3: key 'path' is there twice"),
        ("a: &x [1]\nb: *x\n", "line 2: YAML aliases"),
        ("a: [1\n", "is not YAML"),
        ("a: \x00\n", "is not YAML"),
        (b"name: \xff\xfe\xfa\n", "is not YAML"),
        ("- a\n- b\n", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
        ("a: " + "x" * (1 << 20), "at most 1048576 are read"),
    ],
)
@pytest.mark.fault("security.yaml")
def test_a_file_that_is_no_plain_mapping_is_refused_with_its_path(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    sentence = _refusal(tmp_path, content)
    assert expected in sentence
    assert str(tmp_path / "job.yaml") in sentence


@pytest.mark.parametrize("content", ["name: 2024-13-45\n", "name: 0x_\n", "[" * 5000])
@pytest.mark.fault("security.yaml")
def test_a_value_yaml_itself_chokes_on_is_refused_with_its_path(
    tmp_path: Path, content: str
) -> None:
    assert str(tmp_path / "job.yaml") in _refusal(tmp_path, content)


def test_a_spec_that_is_not_there_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=re.escape(f"{tmp_path / 'no.yaml'}: No such file")):
        load_spec(tmp_path / "no.yaml")
    with pytest.raises(SpecError, match="Is a directory"):
        load_spec(tmp_path)


def test_overrides_win_over_the_file_and_reach_into_lists(tmp_path: Path) -> None:
    path = _write(tmp_path, EXAMPLE)
    spec = load_spec(
        path,
        [
            "name=other",
            "source.uri=[a.parquet, b.parquet]",
            "source.uri.1=c.parquet",
            "source.keep.0=headline",
            "source.task={column: kind}",
            "output.multi=null",
            "compute.pools.code.min=2",
            "model.max_length=77",
        ],
    )
    assert spec.name == "other"
    assert spec.sources[0].uris == ("a.parquet", "c.parquet")
    assert spec.sources[0].keep == ["headline", "url"]
    assert spec.sources[0].task_column == "kind"
    assert spec.output.multi is None
    assert spec.compute.pools["code"].min == 2
    assert spec.compute.pools["retrieval"].max == 4
    assert spec.model.max_length == 77


def test_an_override_reaches_into_a_list_of_sources(tmp_path: Path) -> None:
    raw = yaml.safe_load(EXAMPLE)
    raw["source"] = [raw["source"], copy.deepcopy(raw["source"])]
    path = _write(tmp_path, yaml.safe_dump(raw))
    spec = load_spec(path, ["source.1.uri=elsewhere"])
    assert [source.uris for source in spec.sources] == [(raw["source"][0]["uri"],), ("elsewhere",)]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name", "one --set is not of the form key=value"),
        ("=x", "one --set is not of the form key=value"),
        ("na me=x", "one --set is not of the form key=value"),
        ("name=[1", "--set name: what is behind the = is not a YAML value"),
        ("source.keep.2=x", "--set source.keep.2: '2' is not one of the 2 entries"),
        ("source.keep.x=x", "--set source.keep.x: 'x' is not one of the 2 entries"),
        ("name=*x", "aliases"),
        ("model.max_length=no", "model.max_length: 'no'"),
        ("model.max_lenth=5", "did you mean 'max_length'"),
    ],
)
def test_a_bad_override_is_one_sentence(tmp_path: Path, override: str, expected: str) -> None:
    if override == "model.max_length=no":
        expected = "model.max_length: False"  # YAML 1.1 reads `no` as a boolean
    assert expected in _refusal(tmp_path, EXAMPLE, override)


_CANARY = "wJalrXUtnFEMI"
_MISPLACED = {
    "a misspelt section": ({"storages": [{"secret": _CANARY}]}, "storages: unknown key; did you"),
    "a wrong place": ({"output": {"uri": "x", "secret": _CANARY}}, "output.secret: unknown key"),
    "below a key of another kind": (
        {"name": {"secret": _CANARY}},
        "name: a mapping is not valid; expected",
    ),
    "in a list there": ({"name": [{"secret": _CANARY}]}, "name: [a mapping] is not valid"),
    "no space": ({"output": {f"secret:{_CANARY}": None}}, "output: one key is not a word"),
    "no space at the top": ({f"secret:{_CANARY}": None}, "the spec: one key is not a word"),
    "a password": ({"name": f"s3://k:{_CANARY}@b"}, "name: its value is not valid"),
}
_BROKEN = {
    "an open quote": (f'storage:\n- secret: "{_CANARY}\n', "line 3, column 1: while scanning a"),
    "a tab": (f"storage:\n\tsecret: {_CANARY}", "line 2, column 1: while scanning"),
    "no colon": (f"storage:\n- uri: s3://\n  {_CANARY}\n  x: 1", "could not find expected ':'"),
    "a tag": (f"name: !{_CANARY} x", "line 1, column 7: could not determine a constructor for the"),
    "a handle": (f"name: !{_CANARY}!x x", "line 1, column 7: while parsing a node found undefined"),
    "an anchor": (f"name: &{_CANARY} x\nb: &{_CANARY} y", "line 2, column 4: found duplicate"),
    "a key twice": (f"{{secret={_CANARY}: 1, secret={_CANARY}: 2}}", "a key is there twice"),
}


@pytest.mark.parametrize("name", [*_MISPLACED, *_BROKEN])
@pytest.mark.fault("security.secrets")
def test_what_is_written_in_a_wrong_place_is_not_shown(tmp_path: Path, name: str) -> None:
    if name in _MISPLACED:
        part, expected = _MISPLACED[name]
        content = yaml.safe_dump(yaml.safe_load(EXAMPLE) | part)
    else:
        content, expected = _BROKEN[name]
    sentence = _refusal(tmp_path, content)
    assert expected in sentence
    assert _CANARY not in sentence


@pytest.mark.parametrize(
    "override",
    [
        f"storage.0.secret {_CANARY}",
        f"storage.0.secret:{_CANARY}==",
        f"name='{_CANARY}",
        f"name=!{_CANARY} x",
        f"storages.x={_CANARY}",
        f"{_CANARY}.=x",
    ],
)
@pytest.mark.fault("security.secrets")
def test_an_override_that_went_wrong_is_not_shown(tmp_path: Path, override: str) -> None:
    assert _CANARY not in _refusal(tmp_path, EXAMPLE, override)
    with_secret = EXAMPLE + f"storage: [{{uri: 's3://', secret: {_CANARY}}}]\n"
    assert _CANARY not in _refusal(tmp_path, with_secret, "storage.0.secret.x=1")
    assert _CANARY not in _refusal(tmp_path, with_secret, "source.keep.0.x=1")


@pytest.mark.parametrize("override", ["source.keep.0.x=1", "source.keep.²=1", "name=2024-13-45"])
def test_an_override_below_a_plain_value_is_one_sentence(tmp_path: Path, override: str) -> None:
    assert "--set" in _refusal(tmp_path, EXAMPLE, override)


def test_the_json_schema_accepts_the_example_and_refuses_a_typo() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(EXAMPLE))
    validator.validate(_with("source.task", {"column": "kind"}))
    validator.validate(_with("source.uri", ["a", "b"]))
    assert not validator.is_valid(_with("source.task", "retrieval"))
    assert not validator.is_valid(_with("model.pth", "x"))
    assert not validator.is_valid(_with("compute.pools", {"no name": {}}))
    assert all("description" in f for f in schema["$defs"]["ModelSpec"]["properties"].values())


def test_a_spec_cannot_be_changed_once_read(tmp_path: Path) -> None:
    spec = load_spec(_write(tmp_path, EXAMPLE))
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "x"  # type: ignore[misc]


def test_a_misspelt_key_is_named_rather_than_the_one_that_is_missing(tmp_path: Path) -> None:
    raw = yaml.safe_load(EXAMPLE)
    raw["ouput"] = raw.pop("output")
    assert "did you mean 'output'" in _refusal(tmp_path, yaml.safe_dump(raw))
