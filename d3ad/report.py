"""Writing figures, tables and where they come from; what the paper reports beside what was measured."""
import io
import json
import platform
import subprocess
import sys
import time
from importlib import metadata
from importlib.resources import files

import matplotlib.pyplot as plt
import pandas as pd
import torch

from d3ad.experiments import ROOT, Workspace

PACKAGES = ("torch", "diffusers", "timm", "faiss-cpu", "scikit-learn", "numpy", "matplotlib")
DPI = 150


def header(workspace: Workspace) -> None:
    """Print what a run depends on: versions, profile, device, seed."""
    light_pictures()
    config = workspace.config
    print("versions:", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"profile {config.name} · device {config.device} · seed {config.seed} · settings {config.hash()}")


def light_pictures() -> None:
    """In a notebook, keep pictures as JPEG: noise as PNG makes files of several megabytes.  figures/ stays PNG."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("jpeg", bbox_inches="tight", pil_kwargs={"quality": 82})


def html(frame: pd.DataFrame, decimals: int = 1, index: bool = False):
    """A table for a notebook: rounded, empty cells left empty, the same text each time."""
    from IPython.display import HTML
    return HTML(frame.to_html(index=index, float_format=lambda value: f"{value:.{decimals}f}", na_rep="", border=0))


def version(package: str) -> str:
    """A package's version without its local suffix, "-" where it isn't installed."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return "-"


def commit() -> str:
    """The checkout's commit, "+" behind it where d3ad/ was changed since; "unknown" outside git."""
    def git(*arguments):
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", "d3ad") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict:
    """The machine, without its name: processor, cores, GPU."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return dict(system=platform.system(), processor=platform.machine(), threads=torch.get_num_threads(), gpu=gpu)


def save_figure(workspace: Workspace, fig, name: str, fingerprint: str = "") -> None:
    """Write figures/<profile>/<name>.png, stamped with profile, seed and settings, and note where it comes from.

    fingerprint: of the data that it shows.
    """
    config = workspace.config
    fig.text(0.999, 1.005, f"{config.name} profile · seed {config.seed} · {config.hash()}", ha="right", va="bottom",
             fontsize=5, color="#888888")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    _write(workspace, f"figures/{workspace.name}/{name}.png", buffer.getvalue(), fingerprint)


def save_table(workspace: Workspace, frame: pd.DataFrame, name: str, fingerprint: str = "") -> None:
    """Write results/<profile>/<name>.csv with two decimals, empty cells where nothing was measured, and note its source."""
    text = frame.assign(profile=workspace.name).to_csv(index=False, float_format="%.2f", lineterminator="\n")
    _write(workspace, f"results/{workspace.name}/{name}.csv", text.encode(), fingerprint)


def _write(workspace: Workspace, path: str, content: bytes, fingerprint: str) -> None:
    """Write one product in one go, and its entry in provenance.json."""
    file = (workspace.out or ROOT) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_bytes(content)
    part.replace(file)
    note = workspace.results / "provenance.json"
    entries = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    entries[path] = dict(
        commit=commit(), config=workspace.config.hash(), data=fingerprint, seed=workspace.config.seed,
        packages={name: version(name) for name in PACKAGES}, machine=machine(),
        seconds=round(time.monotonic() - workspace.opened, 1))
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_suffix(".part")
    part.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(note)


def reported(table: int) -> pd.DataFrame:
    """What the paper prints in a table: columns dataset, category, method, reported_*, in the paper's units."""
    with (files("d3ad") / "paper" / f"table{table}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"category": str})


def beside_paper(table: int, measured: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with what was measured on the same dataset, category and method, then all other measured rows.

    A cell that was not measured, or that the paper doesn't give, is empty.
    """
    keys = ["dataset", "category", "method"]
    columns = keys + [c for c in measured if c.startswith("measured_")]
    return reported(table).merge(measured[columns], on=keys, how="outer", sort=False)


def written(workspace: Workspace, *paths: str) -> None:
    """Raise AssertionError where a figure ("fig05") or table ("table4") isn't there or isn't in range."""
    for name in paths:
        if name.startswith("fig"):
            picture = plt.imread(workspace.figures / f"{name}.png")
            assert picture.std() > 0.01, f"{name} is empty"
        else:
            frame = pd.read_csv(workspace.results / f"{name}.csv")
            percent = frame.filter(regex="_(i_auroc|p_auroc|pro)$")
            values = percent.to_numpy(dtype=float)
            assert len(frame) and ((values >= 0) & (values <= 100) | pd.isna(values)).all(), f"{name} is out of range"


# ---- the README's numbers come from results/, never from a keyboard ----

MARKS = "<!-- results: written by python -m d3ad.report -->", "<!-- end of results -->"


def results_block() -> str:
    """The README's tables of measured numbers, in Markdown, from the committed benchmark.csv files."""
    parts = []
    for profile, title in (("demo", "Drawn stand-ins (`demo`)"), ("mtd", "Magnetic tiles, real photographs (`mtd`)")):
        file = ROOT / "results" / profile / "benchmark.csv"
        if file.exists():
            parts.append(f"**{title}**, in percent, from [`{file.relative_to(ROOT).as_posix()}`](results/{profile}/benchmark.csv):\n\n"
                         + _markdown(pd.read_csv(file), profile))
    return "\n\n".join(parts)


def _markdown(frame: pd.DataFrame, profile: str) -> str:
    average = frame[frame["category"] == "Average"]
    if profile == "demo":
        d3ad = frame[(frame["method"] == "D3AD") & (frame["category"] != "Average")]
        rows = average[average["dataset"] == "all stand-ins"]
        shown = [(row.method + ", mean of all categories", row) for row in rows.itertuples()]
        shown += [(f"D3AD, {row.category} ({row.dataset})", row) for row in d3ad.itertuples()]
    else:
        shown = [(f"{row.method}, {row.split.replace('_', ' ')} split", row) for row in average.itertuples()]
    lines = ["| | I-AUROC | P-AUROC | PRO |", "|---|---|---|---|"]
    for label, row in shown:
        cells = []
        for metric in ("i_auroc", "p_auroc", "pro"):
            spread = getattr(row, f"spread_{metric}")
            cells.append(f"{getattr(row, f'measured_{metric}'):.1f}" + ("" if pd.isna(spread) else f" ± {spread:.1f}"))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_results(readme: str) -> str:
    """The README's text with its results block made anew."""
    before, rest = readme.split(MARKS[0])
    return f"{before}{MARKS[0]}\n{results_block()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_results(path.read_text(encoding="utf-8")), encoding="utf-8")
