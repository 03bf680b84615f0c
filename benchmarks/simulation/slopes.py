"""What a record of `benchmarks.simulated` says of one row, one unit, and none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Slopes of a record: a line through each quantity of its runs."""

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
    """Of the driver on Ray, for a unit."""
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


def newest_record(folder: Path = RESULTS) -> dict[str, Any]:
    """The newest record of `benchmarks.simulated`."""
    found: dict[str, Any] = json.loads(max(folder.glob("*-simulated-*.json")).read_text())
    return found


def measured(record: dict[str, Any]) -> Measured:
    """What a record says."""
    refuse, keep = (
        next(
            run
            for run in record["runs"]
            if not run["on_ray"] and run["corpus"]["duplicate_ids"] == choice
        )
        for choice in ("refuse", "keep")
    )
    rows, units = refuse["corpus"]["rows"], refuse["steps"]["embed"]["found"]["units"]
    first, again, night, opened = (
        refuse["steps"][name] for name in ("embed", "embed again", "nightly", "open")
    )
    kept = keep["steps"]
    on_ray = _on_ray(record)
    own = first["cpu"] - first["phases"]["plan"]["cpu"] - first["phases"]["workers"]["cpu"]
    plan = refuse["steps"]["embed"]["phases"]["plan"]
    objects = refuse["objects"]
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
        again_row_bytes=(again["highest"] - again["imported"]) / rows,
        manifest_unit_bytes=objects["manifests"]["bytes"] / units,
        record_unit_bytes=objects["work"]["bytes"] / units,
        inspection_row_bytes=objects["inspections"]["bytes"] / rows,
        log_bytes=objects["log"]["bytes"],
        lists_per_unit=first["requests"]["LIST"] / units,
        open_unit_cpu=opened["cpu"] / units,
        open_unit_bytes=(opened["highest"] - opened["imported"]) / units,
    )


def _on_ray(record: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Intercept and slope over units of what the runs on Ray took."""
    runs = [run for run in record["runs"] if run["on_ray"]]
    units = [run["steps"]["embed"]["found"]["units"] for run in runs]
    values = {
        "bytes": [run["steps"]["embed"]["highest"] for run in runs],
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
