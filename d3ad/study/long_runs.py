"""Numbers of baselines that are too long for a notebook, in a table that outlives the cache and is committed:
results/long/<profile>.csv.

`python -m d3ad.study.measure` adds a row for each baseline and category that it has measured.  A row counts as long as
the data and all settings that the baseline depends on are as they were.  It holds no maps, so what needs them, such as
the ledger of claims, goes without these baselines where the cache lacks them.
"""
import hashlib
from functools import lru_cache
from pathlib import Path

import pandas as pd

from d3ad.baselines import baseline_class
from d3ad.infra.devices import device_name, pick_device
from d3ad.infra.files import ROOT, in_turn, write_whole
from d3ad.infra.versions import commit
from d3ad.study.shared import shared_of
from d3ad.study.workspace import Run, Workspace

TEXT = dict.fromkeys(("category", "key", "commit"), str)  # columns that may look like numbers
SETTINGS = ("image_size", "seed", "backbone", "backbone_weights", "sigma")  # of the method, that baselines share


def table(workspace: Workspace) -> Path:
    """The table of a profile, where this workspace writes."""
    return (workspace.out or ROOT) / "results" / "long" / f"{workspace.name}.csv"


def methods(profile: str) -> set[str]:
    """The methods that the committed table of a profile has numbers of."""
    file = ROOT / "results" / "long" / f"{profile}.csv"
    return {entry["method"] for entry in _read(file, file.stat().st_mtime_ns).values()} if file.exists() else set()


def key(run: Run, name: str, version: str) -> str:
    """12 hex digits of all that a baseline's numbers on a run depend on.

    version: of the baseline and of its budget.
    """
    parts = [name, version, run.config.hash(*SETTINGS), run.fingerprint,
             run.key if baseline_class(name).needs_detector else "",
             # features that are trained here
             shared_of(run).folder.name if run.config.backbone_weights == "none" else ""]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def row(run: Run, name: str, version: str) -> dict | None:
    """What the table holds of a baseline on a run, the workspace's own or else the committed one; None where neither
    holds anything.
    """
    own = table(run.workspace)
    for file in dict.fromkeys((own, ROOT / "results" / "long" / own.name)):
        if file.exists() and (found := _read(file, file.stat().st_mtime_ns).get(key(run, name, version))):
            return found
    return None


@lru_cache(maxsize=4)
def _read(file: Path, changed: int) -> dict[str, dict]:
    """The rows by their key; read again after a change of the file."""
    return {entry["key"]: entry for entry in pd.read_csv(file, dtype=TEXT).to_dict("records")}


def keep(run: Run, name: str, version: str, numbers: dict, minutes: float | None) -> None:
    """Add a row, or put it in the place of an older one of the same baseline and run.

    numbers: as a row of `comparison.summary`.  minutes: None where they aren't known.
    """
    file = table(run.workspace)
    processor = device_name(pick_device(run.config.device))
    new = numbers | dict(minutes=minutes, processor=processor, commit=commit(), profile=run.workspace.name,
                         key=key(run, name, version))
    frame = pd.DataFrame([new]).astype({"minutes": float})
    file.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(run.workspace.cache.with_name("long.lock")):  # another command may measure another category
        if file.exists():
            older, same = pd.read_csv(file, dtype=TEXT), ["dataset", "category", "split", "seed", "method"]
            replaced = (older[same] == frame.loc[0, same]).all(axis=1)
            frame = pd.concat([older[~replaced], frame], ignore_index=True)
        write_whole(file, frame.round(4).to_csv(index=False))
