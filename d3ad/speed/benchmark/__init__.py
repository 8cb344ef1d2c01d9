"""How fast, and how near the machine's limit: `python -m d3ad benchmark`.

Five measurements, each in one run on one machine, so that ratios mean something: `inference` (the reference
implementation, the presets, two baselines), `methods` (all methods of the paper's Table 8), `training` (one step, and
what all datasets would take), `metrics` (PRO and AUROC against the usual ways), `growth` (with photographs, training
images and pixels; at the demo profile's sizes).
Networks have the paper's sizes and random weights, which cost what trained ones cost.
"""
import json
from pathlib import Path

from d3ad.infra.files import ROOT, read_json, write_whole

PARTS = ("inference", "methods", "training", "metrics", "growth")
TINY = dict(rounds=1)


def measured(part: str, size: str, batch: int, file: Path, judge=None, long: bool = False) -> list[dict]:
    """The rows of one part, measured now; the file keeps those of other machines and sizes and gets these.

    judge, long: of `growth.measure`.
    Raises ValueError for an unknown part or size.
    """
    if part == "inference":
        from d3ad.speed.benchmark.inference import inference
        rows = inference(size, batch, **TINY if size == "tiny" else {})
    elif part == "methods":
        from d3ad.speed.benchmark.methods import measure
        rows = measure(size, batch, **TINY if size == "tiny" else {})
    elif part == "training":
        from d3ad.speed.benchmark.training import measure
        rows = measure(size, min(batch, 4), full_batch=30 if size == "paper" else 0)
    elif part == "metrics":
        from d3ad.speed.benchmark.metrics import measure
        rows = measure(6, 64, 6) if size == "tiny" else measure()
    elif part == "growth":
        from d3ad.speed.benchmark.growth import measure
        rows = measure(size, judge, long)
    else:
        raise ValueError(f"part must be one of {', '.join(PARTS)}; got {part!r}")
    rows = [row | {"size": size} for row in rows]
    replaced = (rows[0]["device"], size)
    noted = read_json(file) if file.exists() else []
    others = [row for row in noted if (row["device"], row["size"]) != replaced]
    write_whole(file, json.dumps([*others, *rows], indent=1) + "\n")
    return rows


def as_text(rows: list[dict]) -> str:
    """A line per row: what it is, and its main numbers."""
    def one(row: dict) -> str:
        name = row.get("preset") or row.get("way") or f"{row['metric']}, {row['method']}"
        numbers = {"images_per_second": "images/s", "seconds_per_image": "s per image", "seconds": "s",
                   "speedup": "times the reference", "times_ours": "times ours", "megabytes": "MB"}
        return f"{name}: " + ", ".join(f"{row[key]:.4g} {unit}"
                                       for key, unit in numbers.items() if row.get(key) is not None)

    return "\n".join(map(one, rows))


def kept(part: str, size: str) -> list[dict]:
    """The rows of one part and size that `results/benchmark` holds, of the machine measured last.

    Raises FileNotFoundError, saying which command makes them, where there are none.
    """
    file = ROOT / "results" / "benchmark" / f"{part}.json"
    rows = read_json(file) if file.exists() else []
    rows = [row for row in rows if row["size"] == size]
    if not rows:
        raise FileNotFoundError(f"{file} holds nothing of size {size!r}: run python -m d3ad benchmark")
    return [row for row in rows if row["device"] == rows[-1]["device"]]
