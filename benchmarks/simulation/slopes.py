"""What the records of `benchmarks.simulated` say of one row, one unit, and none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Slopes: a line through each quantity of the runs."""

    imported: float
    """Bytes of a driver that has only imported."""
    row_bytes: float
    """Of the driver at the highest of the planning, for a row whose id must differ."""
    kept_row_bytes: float
    """Likewise when ids are not compared: the units and footers of those rows."""
    unit_bytes: float
    """Of the driver at its highest, for a unit done without Ray."""
    ray_bytes: float
    """Of the driver on Ray with no unit."""
    ray_unit_bytes: float
    """Of the driver on Ray, for a unit of an execution."""
    ray_unit_cpu: float
    """CPU seconds of the driver while Ray works, for a unit."""
    board_unit_cpu: float
    """CPU seconds of the board, for a unit."""
    row_cpu: float
    """CPU seconds of planning, for a row whose id must differ."""
    unit_cpu: float
    """CPU seconds of the driver beside planning and workers, for a unit."""
    again_row_cpu: float
    """CPU seconds of a night in which nothing changed, for a row whose id must differ."""
    again_unit_cpu: float
    """Likewise for a unit, when ids are not compared."""
    again_row_bytes: float
    """Of such a night's memory, for a row whose id must differ."""
    manifest_unit_bytes: float
    """Of the manifest, for a unit."""
    record_unit_bytes: float
    """Of a unit's record."""
    inspection_row_bytes: float
    """Of what planning remembers, for a row whose id must differ."""
    log_bytes: float
    """Of one entry of the log."""
    lists_per_unit: float
    """LISTs of a first night, for a unit."""
    open_unit_cpu: float
    """CPU seconds of opening a snapshot, for a file."""
    open_unit_bytes: float
    """Bytes of memory of opening a snapshot, for a file."""


def newest_runs(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Of the newest records of `benchmarks.simulated`, without Ray and on it."""
    newest = (
        max(folder.glob(f"*-{name}-float32.json")) for name in ("simulated", "simulated-on-ray")
    )
    return [run for file in newest for run in json.loads(file.read_text())["runs"]]


def of_choice(runs: Sequence[dict[str, Any]], choice: str) -> dict[str, Any]:
    """The run without Ray with that choice of `limits.duplicate_ids`."""
    return next(r for r in runs if not r["on_ray"] and r["corpus"]["duplicate_ids"] == choice)


def measured(runs: Sequence[dict[str, Any]]) -> Measured:
    """What runs say."""
    refuse, kept = of_choice(runs, "refuse"), of_choice(runs, "keep")["steps"]
    rows, units = refuse["corpus"]["rows"], refuse["steps"]["embed"]["found"]["units"]
    first, night, opened = (refuse["steps"][name] for name in ("embed", "nightly", "open"))
    plan, objects, on_ray = first["phases"]["plan"], refuse["objects"], _on_ray(runs)
    own = first["cpu"] - plan["cpu"] - first["phases"]["workers"]["cpu"]
    return Measured(
        imported=first["imported"],
        row_bytes=(plan["highest"] - first["imported"]) / rows,
        kept_row_bytes=(kept["embed"]["phases"]["plan"]["highest"] - first["imported"]) / rows,
        unit_bytes=(kept["embed"]["highest"] - kept["embed"]["imported"]) / units,
        ray_bytes=on_ray["bytes"][0],
        ray_unit_bytes=on_ray["bytes"][1],
        ray_unit_cpu=on_ray["cpu"][1],
        board_unit_cpu=on_ray["board"][1],
        row_cpu=plan["cpu"] / rows,
        unit_cpu=own / units,
        again_row_cpu=(night["cpu"] - kept["nightly"]["cpu"]) / rows,
        again_unit_cpu=kept["nightly"]["cpu"] / units,
        again_row_bytes=(night["highest"] - night["imported"]) / rows,
        manifest_unit_bytes=objects["manifests"]["bytes"] / units,
        record_unit_bytes=objects["work"]["bytes"] / units,
        inspection_row_bytes=objects["inspections"]["bytes"] / rows,
        log_bytes=objects["log"]["bytes"],
        lists_per_unit=first["requests"]["LIST"] / units,
        open_unit_cpu=opened["cpu"] / units,
        open_unit_bytes=(opened["highest"] - opened["imported"]) / units,
    )


def _on_ray(all_runs: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Intercept and slope over units of what the runs on Ray took."""
    runs = [run for run in all_runs if run["on_ray"]]
    units = [run["steps"]["embed"]["found"]["units"] for run in runs]
    values = {
        "bytes": [run["steps"]["embed"]["phases"]["workers"]["highest"] for run in runs],
        "cpu": [run["steps"]["embed"]["phases"]["workers"]["cpu"] for run in runs],
        "board": [run["cluster_cpu"]["board"] for run in runs],
    }
    return {name: line(units, found) for name, found in values.items()}


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the least squares."""
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True))
    slope = over / sum((x - middle_x) ** 2 for x in xs)
    return middle_y - slope * middle_x, slope
