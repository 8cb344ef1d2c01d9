"""Writing figures, tables and where they come from; what the paper reports beside what was measured."""
import hashlib
import io
import json
import platform
import subprocess
import sys
import time
from functools import lru_cache
from importlib import metadata

import matplotlib.pyplot as plt
import pandas as pd
import torch
from PIL import Image

from d3ad.infra.files import in_turn, read_json, write_whole
from d3ad.study import paper
from d3ad.study.workspace import ROOT, Workspace

# Every figure and table of the paper: the notebook that makes it, and what it shows.
ARTIFACTS = {
    "fig01": ("06_qualitative", "segmentations across scales"),
    "fig02": ("01_background", "dynamic conditioning: the more anomalous, the more disturbed"),
    "fig03": ("01_background", "the way of one image through the detector"),
    "fig04": ("06_qualitative", "how the anomaly map is put together"),
    "fig05": ("03_dic_histograms", "bins of training and test images"),
    "fig06": ("03_dic_histograms", "masks at fixed steps and at the dynamic one"),
    "fig07": ("06_qualitative", "reconstruction and segmentation by category"),
    "fig08": ("06_qualitative", "reconstructions beside DRAEM's"),
    "fig09": ("06_qualitative", "masks beside DRAEM's and DDAD's"),
    "fig10": ("06_qualitative", "more segmentations across scales"),
    "fig11": ("01_background", "the forward process, noised"),
    "fig12": ("01_background", "the forward process, only scaled"),
    "fig13": ("01_background", "only scaled, up to step 800"),
    "fig14": ("04_noise_fraction_ablation", "three metrics over the share of noise"),
    "fig15": ("04_noise_fraction_ablation", "scaled beside noised at rising levels"),
    "fig16": ("03_dic_histograms", "bins of all categories"),
    "table1": ("07_benchmark_tables", "VisA: I-AUROC, PRO"),
    "table2": ("07_benchmark_tables", "diffusion models on VisA"),
    "table3": ("07_benchmark_tables", "BTAD: I-AUROC, PRO"),
    "table4": ("03_dic_histograms", "dynamic against fixed steps"),
    "table5": ("05_ds_da_ablation", "downscaling and domain adaptation"),
    "table6": ("07_benchmark_tables", "MVTec AD: I-AUROC, P-AUROC, PRO"),
    "table7": ("07_benchmark_tables", "VisA: P-AUROC"),
    "table8": ("07_benchmark_tables", "time per image"),
}
PACKAGES = ("torch", "diffusers", "timm", "anomalib", "faiss-cpu", "scikit-learn", "numpy", "matplotlib")
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
        set_matplotlib_formats("jpeg", bbox_inches="tight", pil_kwargs={"quality": 75})


def html(frame: pd.DataFrame, decimals: int = 1, index: bool = False):
    """A table for a notebook: rounded, empty cells left empty, the same text each time."""
    from IPython.display import HTML
    return HTML(frame.to_html(index=index, float_format=lambda value: f"{value:.{decimals}f}", na_rep="", border=0))


@lru_cache
def version(package: str) -> str:
    """A package's version without its local suffix, "-" where it isn't installed."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return "-"


@lru_cache
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
    """Write figures/<profile>/<name>.png, stamped with profile, seed, settings and commit, and note where it comes from.

    fingerprint: of the data that it shows.
    """
    config = workspace.config
    fig.text(0.999, 1.005, f"{config.name} profile · seed {config.seed} · settings {config.hash()} · commit {commit()}", ha="right", va="bottom",
             fontsize=5, color="#888888")
    drawn, buffer = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight")
    with Image.open(drawn) as picture:
        _in_256_colours(picture.convert("RGB")).save(buffer, format="png", optimize=True)
    _write(workspace, f"figures/{workspace.name}/{name}.png", buffer.getvalue(), fingerprint)


def _in_256_colours(picture: Image.Image) -> Image.Image:
    """The picture with a palette that keeps rare colours too: a fifth of the bytes.  Every second pixel chooses it, for speed."""
    sample = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def save_table(workspace: Workspace, frame: pd.DataFrame, name: str, fingerprint: str = "", decimals: int = 2) -> None:
    """Write results/<profile>/<name>.csv, rounded, with empty cells where nothing was measured, and note its source."""
    text = frame.assign(profile=workspace.name).to_csv(index=False, float_format=f"%.{decimals}f", lineterminator="\n")
    _write(workspace, f"results/{workspace.name}/{name}.csv", text.encode(), fingerprint)


def _write(workspace: Workspace, path: str, content: bytes, fingerprint: str) -> None:
    """Write one product in one go, and its entry in provenance.json, which holds the SHA-256 of its bytes."""
    write_whole((workspace.out or ROOT) / path, content)
    note = workspace.results / "provenance.json"
    with in_turn(workspace.cache / "provenance.lock"):  # else one of two notebooks could undo the other's entry
        entries = read_json(note) if note.exists() else {}
        entries[path] = dict(
            sha256=hashlib.sha256(content).hexdigest(), commit=commit(), config=workspace.config.hash(), data=fingerprint,
            seed=workspace.config.seed, packages={name: version(name) for name in PACKAGES}, machine=machine(),
            seconds=round(time.monotonic() - workspace.opened, 1))
        write_whole(note, json.dumps(entries, indent=1, sort_keys=True) + "\n")


def beside_paper(table: int, measured: pd.DataFrame, more: tuple[str, ...] = ()) -> pd.DataFrame:
    """The paper's rows with what was measured on the same dataset, category and method, then all other measured rows.

    A cell that was not measured, or that the paper doesn't give, is empty.  more: measured columns that the paper lacks.
    """
    known = paper.reported(table)
    order = [f"measured_{c.removeprefix('reported_')}" for c in known if c.startswith("reported_")]  # the paper's own
    measured = measured[paper.KEYS + [c for c in (*order, *more) if c in measured]]
    of_paper = pd.MultiIndex.from_frame(measured[paper.KEYS]).isin(pd.MultiIndex.from_frame(known[paper.KEYS]))
    return pd.concat([known.merge(measured, on=paper.KEYS, how="left"), measured[~of_paper]], ignore_index=True)


BOLD = {"html": "<b>{}</b>", "md": "**{}**", "tex": "\\textbf{{{}}}"}


def layout(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A table of `beside_paper` laid out as the paper prints it, as text: a row per category, a column per method.

    A cell holds the metrics in their order, an em dash where one is missing; the best of a row and metric is bold, among what
    was reported and among what was measured.  Where a row has both, measured methods have a second column; where no row has,
    the dataset's name says which rows were measured.  kind: "html", "md" or "tex".
    """
    given = {prefix: frame.filter(regex=f"^{prefix}_").notna().any(axis=1) for prefix in ("reported", "measured")}
    side_by_side = bool((given["reported"] & given["measured"]).any())
    columns = [(method, prefix) for method in frame["method"].unique() for prefix in given
               if given[prefix][frame["method"] == method].any()] if side_by_side else [(m, None) for m in frame["method"].unique()]
    rows = []
    for (dataset, category), here in frame.groupby(["dataset", "category"], sort=False):
        measured = given["measured"][here.index].any() and not side_by_side
        row = {"dataset": dataset + (", measured" if measured else ""), "category": category.replace("_", " ")}
        here = here.set_index("method")
        for method, prefix in columns:
            kind_of_value = prefix or ("measured" if measured else "reported")
            values = here.filter(regex=f"^{kind_of_value}_(i_auroc|p_auroc|pro|fps|seconds|megabytes)$").dropna(axis=1, how="all")
            text = " / ".join([] if method not in here.index else [_cell(values[c], method, kind) for c in values])
            row[method + (", measured" if prefix == "measured" else "")] = text if text.strip("— /") else ""
        rows.append(row)
    return pd.DataFrame(rows)


def _cell(column: pd.Series, method: str, kind: str) -> str:
    """One number as text, bold where it is the best of its row; the lowest is the best where it is a time or memory."""
    value = column[method]
    if pd.isna(value):
        return "—"
    best = column.min() if column.name.endswith(("seconds", "megabytes")) else column.max()
    text = f"{value:.2g}" if column.name.endswith("seconds") else f"{value:.0f}" if column.name.endswith("megabytes") else f"{value:.1f}"
    return BOLD[kind].format(text) if value == best and column.notna().sum() > 1 else text


def save_layouts(workspace: Workspace, frame: pd.DataFrame, name: str, caption: str, fingerprint: str = "", decimals: int = 2) -> None:
    """Write results/<profile>/<name>.csv, and the same as the paper lays it out: .md (Markdown) and .tex (LaTeX, booktabs)."""
    save_table(workspace, frame, name, fingerprint, decimals)
    markdown = layout(frame, "md")
    lines = ["| " + " | ".join(row) + " |" for row in [list(markdown.columns), ["---"] * markdown.shape[1], *markdown.to_numpy().tolist()]]
    _write(workspace, f"results/{workspace.name}/{name}.md", ("\n".join([caption, "", *lines]) + "\n").encode(), fingerprint)
    tex = layout(frame, "tex").to_latex(index=False, escape=False, caption=caption.replace("%", "\\%"), label=f"tab:{name}")
    _write(workspace, f"results/{workspace.name}/{name}.tex", tex.replace("—", "--").encode(), fingerprint)


def layout_html(frame: pd.DataFrame):
    """`layout` for a notebook."""
    from IPython.display import HTML
    return HTML(layout(frame, "html").to_html(index=False, escape=False, border=0))


def written(workspace: Workspace, *names: str) -> None:
    """Raise AssertionError where neither a figure nor a table of this name ("fig05", "table4") is there, or one isn't in range."""
    for name in names:
        picture, table = workspace.figures / f"{name}.png", workspace.results / f"{name}.csv"
        assert picture.exists() or table.exists(), f"{name} was not written"
        if picture.exists():
            assert plt.imread(picture).std() > 0.01, f"{name} is empty"
        if table.exists():
            values = pd.read_csv(table).filter(regex="^(measured|reported)_(i_auroc|p_auroc|pro)").to_numpy(dtype=float)
            assert ((values >= 0) & (values <= 100) | pd.isna(values)).all(), f"{name} is out of range"


def minutes(workspace: Workspace) -> dict[str, float]:
    """How long each notebook took to run from an empty cache, as far as the runner saw it."""
    file = workspace.results / "minutes.json"
    return read_json(file)["minutes"] if file.exists() else {}


def registry(workspace: Workspace, ledger: pd.DataFrame) -> list[dict]:
    """Write results/<profile>/registry.json: each average of the paper's tables and each claim, reported and measured.

    Entries: item, paper, measured, spread, notebook, minutes; None where there is nothing.
    """
    took, entries = minutes(workspace), []

    def entry(item, reported, measured, spread, notebook):
        values = (None if pd.isna(value) else round(float(value), 2) if isinstance(value, float) else value
                  for value in (reported, measured, spread))
        entries.append(dict(zip(("item", "paper", "measured", "spread"), (item, *values)), notebook=notebook, minutes=took.get(notebook)))

    for name, (notebook, _) in ARTIFACTS.items():
        if name.startswith("table") and (workspace.results / f"{name}.csv").exists():
            frame = pd.read_csv(workspace.results / f"{name}.csv", dtype={"category": str})
            for row in frame[frame["category"] == "Average"].to_dict("records"):
                for metric in paper.METRICS:
                    numbers = [row.get(f"{kind}_{metric}") for kind in ("reported", "measured", "spread")]
                    if not all(pd.isna(number) for number in numbers):
                        entry(f"Table {name[-1]}, {row['dataset']}, {row['method']}, {metric}", *numbers, notebook)
    for row in ledger.itertuples():
        entry(f"claim: {row.claim}", row.reported or None, row.measured, row.spread, "08_claims")
    _write(workspace, f"results/{workspace.name}/registry.json", (json.dumps(entries, indent=1) + "\n").encode(), "")
    return entries
