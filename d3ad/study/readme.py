"""The README's tables: made from results/, never typed.

    python -m d3ad.study.readme        # write them anew
"""
import json

import pandas as pd

from d3ad.speed.benchmark import kept
from d3ad.study.ablations import BENCHMARK
from d3ad.study.claims import mentions
from d3ad.study.comparison import as_text, over_seeds, overall
from d3ad.study.provenance import ARTIFACTS
from d3ad.study.workspace import ROOT

MARK, END = "<!-- {}: written by python -m d3ad.study.readme -->", "<!-- end -->"
THUMBNAIL = 260  # pixels
TITLES = {"demo": "Synthetic datasets (`demo`)", "mtd": "Magnetic tiles, real photographs (`mtd`)"}
METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}


def gallery() -> str:
    """Every figure and table of the paper: the picture or file, the notebook that makes it, its minutes, the claims on
    it.
    """
    took = _json("demo", "minutes")["minutes"]
    ledger = pd.read_csv(ROOT / "results/demo/claims.csv")
    lines = ["| | shows | claims that rest on it | notebook | minutes |", "|---|---|---|---|---|"]
    for name, (notebook, shows) in ARTIFACTS.items():
        number = name.lstrip("figtable").lstrip("0")
        if name.startswith("fig"):
            path = f"figures/demo/{name}.png"
            first = f'Figure {number}<br><a href="{path}"><img src="{path}" width="{THUMBNAIL}"></a>'
        else:
            formats = [f"[{kind.upper()}](results/demo/{name}.{kind})" for kind in ("csv", "md", "tex")
                       if (ROOT / f"results/demo/{name}.{kind}").exists()]
            first = f"Table {number}: {', '.join(formats)}"
        claimed = "<br>".join(f"{row.claim}: {_bold(row.verdict)}" for row in ledger.itertuples()
                              if mentions(row.where, name))
        lines.append(f"| {first} | {shows} | {claimed} | [{notebook[:2]}](notebooks/{notebook}.ipynb) | "
                     f"{took[notebook]:.1f} |")
    return "\n".join(lines)


def claims() -> str:
    """The ledger of claims: a row per claim, a column per profile that has measured it."""
    frames = {profile: pd.read_csv(ROOT / f"results/{profile}/claims.csv") for profile in ("demo", "mtd")
              if (ROOT / f"results/{profile}/claims.csv").exists()}
    lines = ["| claim | in the paper | " + " | ".join(f"`{name}`" for name in frames) + " |",
             "|---|---" + "|---" * len(frames) + "|"]
    by_claim = [frame.set_index("claim") for frame in frames.values()]
    for _, row in frames["demo"].iterrows():
        cells = [_verdict(frame.loc[row["claim"]]) if row["claim"] in frame.index else "not tested"
                 for frame in by_claim]
        if any(cell != "not tested" for cell in cells):
            lines.append(f"| {row['claim']} | {row['where']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(row: pd.Series) -> str:
    if row["verdict"] == "not tested":
        return "not tested"
    return f"{_bold(row['verdict'])}: {_signed(row['measured'])} ± {row['spread']:.2f} {row['quantity']}"


def _signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def _bold(verdict: str) -> str:
    return f"**{verdict}**" if verdict == "reproduced" else verdict


def _json(profile: str, name: str):
    return json.loads((ROOT / f"results/{profile}/{name}.json").read_text(encoding="utf-8"))


def results() -> str:
    """The README's tables of measured numbers, in Markdown, from the committed benchmark.csv files."""
    parts = []
    for profile, title in TITLES.items():
        file = ROOT / "results" / profile / "benchmark.csv"
        if file.exists():
            parts.append(f"**{title}**, in percent, from "
                         f"[`{file.relative_to(ROOT).as_posix()}`](results/{profile}/benchmark.csv):\n\n"
                         + _markdown(pd.read_csv(file), profile))
    return "\n\n".join(parts)


def baselines() -> str:
    """Fifteen methods on the synthetic datasets and the tiles, by PRO on the synthetic ones, best numbers bold."""
    columns: dict[str, dict[str, str]] = {}
    for profile, name, summarise, note in (("demo", "benchmark", overall, ""),
                                           ("demo", "benchmark_seeds", over_seeds, ", washer"),
                                           ("mtd", "benchmark_seeds", over_seeds, "")):
        if (ROOT / f"results/{profile}/{name}.csv").exists():
            summary = summarise(pd.read_csv(ROOT / f"results/{profile}/{name}.csv"))
            text = as_text(summary, METRICS).set_index("method")
            for metric, title in METRICS.items():
                if note and metric != "pro":
                    continue
                best = f"{summary[f'measured_{metric}'].max():.1f}"
                columns[f"`{profile}`{note}, {title}"] = {method: f"**{cell}**" if cell.split(" ")[0] == best else cell
                                                           for method, cell in text[title].items()}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {method} | " + " | ".join(cells.get(method, "") for cells in columns.values()) + " |"
              for method in next(iter(columns.values()), [])]
    return "\n".join(lines)


def _markdown(frame: pd.DataFrame, profile: str) -> str:
    frame = frame[frame["method"].isin(BENCHMARK)]
    average = frame[frame["category"] == "Average"]
    if profile == "demo":
        d3ad = frame[(frame["method"] == "D3AD") & (frame["category"] != "Average")]
        rows = average[average["dataset"] .isin(["all stand-ins", "all synthetic"])]
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


def speed() -> str:
    """Images per second at the paper's sizes, from the machine measured last."""
    rows = kept("inference", "paper")
    about = rows[0]
    lines = [f"{about['device']}, {about['threads']} threads, {about['memory_gb']:.0f} GB; random weights:", "",
             "| | images per second | times the reference | precision | steps S |", "|---|---|---|---|---|"]
    for row in rows:
        steps = row.get("num_steps", 10 if row["preset"] == "reference" else "")
        name = {"reference": "the reference implementation", "PatchCore": "PatchCore (anomalib)",
                "EfficientAD": "EfficientAD (anomalib)"}.get(row["preset"], f"`{row['preset']}`")
        lines.append(f"| {name} | {row['images_per_second']:.2f} | {row['speedup']:.2f} | "
                     f"{row.get('precision', 'float32')} | {steps} |")
    return "\n".join(lines)


BLOCKS = {"gallery": gallery, "results": results, "baselines": baselines, "claims": claims, "speed": speed}


def with_blocks(readme: str) -> str:
    """The README's text with its blocks made anew."""
    for name, block in BLOCKS.items():
        mark = MARK.format(name)
        before, after = readme.split(mark)
        readme = f"{before}{mark}\n{block()}\n{END}{after.split(END, 1)[1]}"
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_blocks(path.read_text(encoding="utf-8")), encoding="utf-8")
