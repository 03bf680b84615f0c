"""The catalogue of faults: what may go wrong, what then happens, and which tests show it.

A test that shows a line carries its key, `@pytest.mark.fault("text.null")`, or several of them.
The table in this folder's README is made from those markers, so what it claims cannot drift from
the tests. `python -m tests.faults.catalogue` writes it anew.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent.parent
TABLE = Path(__file__).parent / "README.md"

_HEAD = """# Faults

What may go wrong, what then happens, and the tests that show it. This page is made from the tests'
markers by `python -m tests.faults.catalogue`; `test_catalogue.py` holds it against them.

Outcomes: **set aside**, the row goes to the quarantine with that reason and the run goes on;
**embedded**, as described; **survived**, the result is the same as without the fault; **refused**
or **failed**, one clear sentence, exit code 2 or 1, and nothing is committed.
"""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A line of the catalogue."""

    words: str
    """The fault."""
    outcome: str
    """What happens then."""
    open: str | None = None
    """Why no test shows it; None when one does."""


def _line(words: str, outcome: str, open: str | None = None) -> Fault:
    return Fault(words=words, outcome=outcome, open=open)


SECTIONS = {
    "text": "Texts",
    "image": "Images",
    "column": "Columns",
    "id": "Ids",
    "file": "Files",
    "store": "Object store",
    "output": "Committed datasets",
    "compute": "Compute",
    "security": "What comes from outside",
}
"""Heading of each section, by the first part of its keys."""

CATALOGUE = {
    "text.null": _line("null, or no such field", "set aside: `null_input`"),
    "text.empty": _line("empty, or only white space", "set aside: `empty_input`"),
    "text.lone_surrogate": _line("a lone surrogate", "set aside: `invalid_unicode`"),
    "text.invalid_utf8": _line(
        "bytes that are not UTF-8 in a string column", "set aside: `invalid_unicode`, row by row"
    ),
    "text.malformed": _line(
        "a JSONL line that is no object, or whose text is no string",
        "set aside: `malformed_record`",
    ),
    "text.odd_characters": _line(
        "NUL, control and bidi characters, a byte order mark, composed or not",
        "embedded as it is; the hash is of the bytes",
    ),
    "text.one_word": _line(
        "a megabyte without a word boundary",
        "embedded, cut by bytes before it is tokenised; `truncated` says so",
    ),
    "text.too_long": _line("more tokens than max_length", "embedded, cut; `truncated` says so"),
    "text.huge_cell": _line("a cell of 300 MB", "embedded, cut; `truncated` says so"),
    "text.no_language": _line("noise, or a language of nobody", "embedded as it is"),
    "image.truncated": _line("the file ends too early", "set aside: `image_truncated`"),
    "image.zeroed_bytes": _line(
        "zeroed bytes inside a JPEG's scan",
        "embedded: no decoder can tell; only a checksum of the source could",
    ),
    "image.bomb": _line(
        "a small file whose header announces a giant image",
        "set aside: `image_too_large`, before a pixel is decoded",
    ),
    "image.over_limit": _line(
        "more pixels than limits.image_pixels", "set aside: `image_too_large`"
    ),
    "image.metadata_bomb": _line(
        "a zTXt or iCCP chunk that swells when it is unpacked", "set aside: `image_truncated`"
    ),
    "image.no_pixels": _line("0 x 0 pixels", "set aside: `not_an_image`"),
    "image.one_pixel": _line("1 x 1 pixels", "embedded, enlarged to the model's least size"),
    "image.thin": _line(
        "one side over 200 times the other", "set aside: `image_aspect_ratio`, as the model refuses"
    ),
    "image.not_an_image": _line("empty, HTML, zeros, PDF", "set aside: `not_an_image`"),
    "image.other_format": _line(
        "EPS, and every other format that Pillow could open",
        "set aside: `not_an_image`; six formats are opened and no other program is started",
    ),
    "image.modes": _line(
        "CMYK, grey, palettes, transparency, 16 bits",
        "embedded as RGB by the reference's rule: alpha is dropped, 16 bits are cut off at 255",
    ),
    "image.frames": _line("several frames or pages", "embedded: the first one"),
    "image.orientation": _line(
        "an EXIF orientation", "embedded: it is ignored, as in the reference"
    ),
    "image.colour_profile": _line("a colour profile of garbage", "embedded: profiles are ignored"),
    "image.decoder_crash": _line(
        "the decoder kills its process", "set aside: `decoder_crash`, found by halving the unit"
    ),
    "image.slow": _line(
        "decoding takes more than limits.decode_seconds of CPU",
        "set aside: `decoder_crash`; its worker is killed and the row found by halving",
    ),
    "image.hungry": _line("decoding takes more than limits.decode_memory", "set aside: `oom`"),
    "column.missing": _line(
        "missing or misspelt", "refused before a model is loaded, naming the columns there are"
    ),
    "column.type": _line("of another type", "refused, naming the column and the file"),
    "column.drift": _line(
        "another type in another shard", "refused, naming the file; columns nobody asked for pass"
    ),
    "id.duplicate": _line(
        "the same id twice for one task",
        "refused before a model is loaded, naming the first twenty; limits.duplicate_ids: keep "
        "embeds every row",
    ),
    "id.types": _line(
        "whole numbers, 16 bytes, strings", "kept as they are: 1 and '1' stay different"
    ),
    "id.null": _line("null", "set aside: `null_id`"),
    "id.hostile": _line(
        "`../`, a line break, a megabyte", "embedded; an id is never part of a path"
    ),
    "file.corrupt": _line(
        "empty, cut, or with a broken footer", "refused, naming the file and what is wrong with it"
    ),
    "file.skipped": _line(
        "the same, and the spec says `on_bad_file: skip`",
        "passed over, counted and listed in the report; one that the store does not give ends the "
        "run",
    ),
    "file.held": _line(
        "the same in a night, of a shard that could be read the night before",
        "its rows stay as they are, which the report says; it is looked at again the next night",
    ),
    "file.bit_flip": _line(
        "a flipped bit in a Parquet page with a checksum", "failed, naming the file"
    ),
    "file.no_rows": _line("a shard without rows", "passed over"),
    "file.nothing": _line("a source without rows, or that matches nothing", "refused"),
    "file.huge_row_group": _line(
        "a whole shard in one row group", "embedded: it is streamed, in the memory of a unit"
    ),
    "file.changed": _line(
        "replaced while the run reads it", "failed; the same command goes on with what is there"
    ),
    "file.gone": _line(
        "deleted while the run reads it",
        "failed, naming it; an image of a folder is set aside: `image_not_found`",
    ),
    "file.link": _line(
        "a symbolic link below the source",
        "embedded like the file it leads to; refused by name where that is outside, gone or a "
        "directory",
    ),
    "file.extension_types": _line(
        "a Parquet column of an extension type, such as Ray's pickled objects",
        "refused before Arrow builds the type, naming the column",
    ),
    "store.slow_down": _line("bursts of 503", "survived"),
    "store.unavailable": _line(
        "503 for longer than the patience", "failed; the same command goes on later"
    ),
    "store.network": _line("time-outs, resets, bodies that are cut or slow", "survived"),
    "store.lost_reply": _line(
        "the commit is written and the reply lost", "survived by reading back; one entry"
    ),
    "store.conflict": _line("409 ConditionalRequestConflict", "survived: it is tried again"),
    "store.no_condition": _line(
        "a store that ignores If-None-Match, a disk without hard links",
        "refused at the start, by a probe",
    ),
    "store.partial_upload": _line(
        "killed during an upload", "survived: nothing half is ever visible"
    ),
    "store.writer_raises": _line(
        "an exception while a file is written", "failed, and no object is published"
    ),
    "store.forbidden": _line(
        "403 in the middle of a run", "failed at once, saying what the store said"
    ),
    "store.expired_credentials": _line(
        "credentials that expire", "failed at once, saying what the store said"
    ),
    "store.wrong_place": _line(
        "a wrong endpoint, a missing bucket", "refused before a device is started"
    ),
    "store.listing": _line("more keys than a page of a listing, strange keys", "survived"),
    "store.stale_listing": _line(
        "a listing that is behind",
        "survived: nothing is taken for absent by a listing alone",
    ),
    "store.disk_full": _line("no space left", "failed, and no half file is left"),
    "store.power_cut": _line(
        "a host that stops before its disk has written",
        "survived: a file, its name and the way to it are synced before they count",
    ),
    "output.damaged": _line(
        "a file of a dataset is cut, gone or changed",
        "refused by whoever reads it, naming it and the way out; `embed` does not call it up to "
        "date, `retry` embeds what is lost again",
    ),
    "output.path": _line(
        "a record or a manifest names a file elsewhere: `../`, an absolute path",
        "refused before anything is opened",
    ),
    "compute.out_of_memory": _line(
        "the device's memory does not hold a pack",
        "survived by halving; an item that fits nowhere is set aside: `oom`",
    ),
    "compute.non_finite": _line(
        "vectors with NaN or Inf, or not of length one",
        "embedded again alone in float32, or set aside: `non_finite`",
    ),
    "compute.poison": _line(
        "a row that kills its worker again and again",
        "set aside after two deaths: `worker_crash`, found by halving the unit",
    ),
    "compute.poison_shard": _line(
        "a shard that kills whoever reads it", "failed after ten deaths, naming it"
    ),
    "compute.constructor": _line(
        "an actor that cannot be made",
        "failed, with the sentence of the model's load",
    ),
    "compute.worker_killed": _line("a worker is killed", "survived"),
    "compute.node_lost": _line("a node is lost", "survived"),
    "compute.preempted": _line("a node is taken away with notice", "survived"),
    "compute.driver_killed": _line(
        "the driver is killed", "survived by the same command; nothing is embedded twice"
    ),
    "compute.head_lost": _line(
        "the cluster's head is lost", "failed in one sentence; the same command goes on"
    ),
    "compute.no_progress": _line(
        "nothing is finished for limits.stall",
        "failed, with what waits for what",
    ),
    "compute.stage_fails": _line(
        "a row of which a stage raises what nobody foresaw",
        "set aside: `unexpected_error`, found by halving the unit; where the stage can do nothing "
        "at all any more, the run fails",
    ),
    "compute.device_lost": _line(
        "a device that fails whatever it is asked",
        "a new process tries the unit again; without Ray the run fails",
    ),
    "compute.may_pass": _line(
        "what was set aside and may go well now",
        "`nightjar retry` embeds it, and nothing else",
    ),
    "compute.host_memory": _line(
        "the host's memory runs out",
        "survived twice, then the unit is halved",
        open="Ray kills workers by what is left of the whole host's memory: to get there a test "
        "would take it from everything else that runs on this machine; a worker that is killed "
        "otherwise is shown by `compute.poison` and `compute.worker_killed`",
    ),
    "compute.wrong_cluster": _line(
        "no cluster at the address, or another one", "refused; the address is always explicit"
    ),
    "compute.clock": _line(
        "a clock that is off by a day",
        "no effect: nothing is decided by a clock",
    ),
    "compute.two_runs": _line("two runs for one output at once", "both succeed, one commit"),
    "compute.two_configs": _line(
        "another way of embedding for the same output", "refused, with the way out"
    ),
    "compute.version_skew": _line("worker and driver of different versions", "failed, naming both"),
    "compute.model_changed": _line(
        "other model files under the same name", "failed: a worker loads no other file"
    ),
    "compute.ragged": _line(
        "multi-vectors of different lengths", "written as Arrow lists, never as pickle"
    ),
    "security.yaml": _line(
        "aliases, repeated keys, a giant spec, tags that call code", "refused in one sentence"
    ),
    "security.path": _line(
        "an image path that leads out of the source", "set aside: `unsafe_path`"
    ),
    "security.url": _line(
        "an image at a URL",
        "set aside: `unsafe_path`, unless its host is in source.image_hosts and public",
    ),
    "security.secrets": _line(
        "secrets in a spec, a URL, a log, an error",
        "named and never written; refused where they are; blotted out of what is told",
    ),
    "security.terminal": _line(
        "an id or a file name with escape sequences or line breaks",
        "embedded; spelled out where it is shown",
    ),
    "security.weights": _line("pickled weights", "never opened; refused where there are no others"),
}
"""Every line, by its key."""


def shown() -> dict[str, list[str]]:
    """The tests that show each key, as `file::name`, found in their sources."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, key in _marks(ast.parse(path.read_text())):
            found.setdefault(key, []).append(f"{path.relative_to(TESTS)}::{name}")
    return {key: list(dict.fromkeys(tests)) for key, tests in found.items()}


def _marks(module: ast.Module) -> Iterator[tuple[str, str]]:
    """(test, key) of every marker on a test, or on a case in a list that it is given by name."""
    assigned: dict[str, ast.AST] = {}
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            assigned |= {t.id: node.value for t in targets if isinstance(t, ast.Name)}
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            parts: list[ast.AST] = list(node.decorator_list)
            seen: set[str] = set()
            while parts:
                for part in ast.walk(parts.pop()):
                    if isinstance(part, ast.Name) and part.id in assigned and part.id not in seen:
                        seen.add(part.id)
                        parts.append(assigned[part.id])
                    yield from ((node.name, key) for key in _keys(part))


def _keys(node: ast.AST) -> list[str]:
    """The keys of `pytest.mark.fault(...)`; of any other node none."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "pytest.mark.fault":
        return []
    return [ast.literal_eval(argument) for argument in node.args]


def table() -> str:
    """The page, as Markdown."""
    tests, page = shown(), [_HEAD]
    for prefix, heading in SECTIONS.items():
        page.append(f"\n## {heading}\n\n| fault | what happens | shown by |\n|---|---|---|\n")
        for key, fault in CATALOGUE.items():
            if key.partition(".")[0] == prefix:
                by = "<br>".join(f"`{test}`" for test in tests.get(key, []))
                page.append(
                    f"| {fault.words} | {fault.outcome} | {by or f'open: {fault.open}'} |\n"
                )
    return "".join(page)


if __name__ == "__main__":
    TABLE.write_text(table())
