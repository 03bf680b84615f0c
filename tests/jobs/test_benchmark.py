"""`nightjar benchmark`: a table, a JSON file and a chart of what was measured."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from jobs.cli import main

Captured = pytest.CaptureFixture[str]


def test_a_benchmark_prints_a_table_and_writes_json_and_a_chart(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    out = tmp_path / "deep" / "result"
    arguments = ["--seconds", "0.05", "--price", "2.5", "--output", str(out)]
    assert main(["benchmark", str(tiny_checkpoint), *arguments, "--token-budget", "3000"]) == 0
    found = json.loads((out / "benchmark.json").read_text())
    assert (found["dtype"], found["attention"], found["compiled"]) == ("float32", "runs", False)
    assert (found["token_budget"], found["multi"], found["price_per_hour"]) == (3000, True, 2.5)
    assert found["ceilings"]["flops_per_second"] > 0 < found["ceilings"]["bytes_per_second"]
    assert set(found["versions"]) == {"python", "nightjar", "torch", "transformers"}
    names = [mix["name"] for mix in found["mixes"]]
    assert names == [
        "texts of 128 tokens",
        "texts of 512 tokens",
        "texts of 2048 tokens",
        "texts of 16 to 2048 tokens, log-normal",
        "pages of 672 x 868 pixels",
    ]
    printed = capsys.readouterr().out
    for mix in found["mixes"]:
        assert 0 < mix["busy_share"] <= 1 and mix["padding_share"] == 0 and mix["ceiling_share"] > 0
        assert mix["items"] / mix["seconds"] == pytest.approx(mix["items_per_second"])
        assert mix["items_per_hour"] == pytest.approx(3600 * mix["items_per_second"])
        hours = 1e6 / mix["items_per_hour"]
        assert mix["cost_per_million"] == pytest.approx(2.5 * hours)
        assert re.search(
            rf"^{re.escape(mix['name'])} .* {mix['items_per_hour']:,.0f} ", printed, re.M
        )
    *texts, pages = found["mixes"]
    assert texts[1]["tokens_per_second"] == pytest.approx(512 * texts[1]["items_per_second"])
    assert all(mix["patches_per_second"] == 0 for mix in texts)
    assert pages["patches_per_second"] == pytest.approx(48 * 62 * pages["items_per_second"])
    with Image.open(out / "benchmark.png") as chart:
        assert chart.format == "PNG" and chart.width > 1000


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize("option", ["--seconds", "--price"])
def test_a_time_or_a_price_that_is_none_is_refused(
    tmp_path: Path, capsys: Captured, option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["benchmark", str(tmp_path), f"{option}={value}"])
    assert refused.value.code == 2
    assert f"argument {option}: {value} is not above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dtype", "int8"], "dtype: 'int8' is not one of auto, float32, bfloat16"),
        (["--adapter", "poetry"], "has no adapter 'poetry'; it has retrieval"),
    ],
)
def test_a_wrong_argument_is_a_sentence_and_exit_code_2(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, arguments: list[str], sentence: str
) -> None:
    command = ["benchmark", str(tiny_checkpoint), "--output", str(tmp_path), *arguments]
    assert main(command) == 2
    assert sentence in capsys.readouterr().err
