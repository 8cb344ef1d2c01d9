"""The measured parts of README.md and of docs/: made from results/, never typed.

    python -m d3ad.study.readme        # write them anew

A block stands between two markers, `<!-- name: written by python -m d3ad.study.readme -->` and `<!-- end -->`.  It
tells of whatever profiles have results; what a profile lacks is left out, or called "pending" or "not measured".
"""
import ast
import re

import pandas as pd

from d3ad.baselines import BASELINES
from d3ad.infra.files import ROOT
from d3ad.speed.benchmark import kept
from d3ad.study import claims
from d3ad.study.comparison import over_seeds
from d3ad.study.provenance import ARTIFACTS

MARKED = re.compile(r"(<!-- ([\w-]+): written by python -m d3ad\.study\.readme -->\n).*?(<!-- end -->)", flags=re.S)
THUMBNAIL, PER_ROW = 200, 4  # pixels; pictures in a row of the gallery
MAX_CATEGORIES = 6  # of one of the paper's datasets with a row of their own
METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}
DATA = {
    "smoke": "a handful of drawn images; for the tests, its numbers mean nothing",
    "demo": "drawn on the spot, in the layouts of VisA, BTAD and MVTec AD",
    "mtd": "magnetic tiles, real photographs, under `--data-root`",
    "elpv": "solar cells, real photographs without masks, from `pip install elpv-dataset`",
    "mvtec-cpu": "whatever categories of MVTec AD lie under `--data-root`",
    "visa": "VisA under `--data-root`; for a GPU", "btad": "BTAD under `--data-root`; for a GPU",
    "mvtec": "MVTec AD under `--data-root`; for a GPU",
    "visa-authors": "VisA with the authors' settings for each category, tuned on the test set; for a GPU",
}
FEATURES = {"tf_efficientnet_lite0": "EfficientNet-Lite0", "resnet18": "ResNet-18", "resnet34": "ResNet-34"}
AUTOENCODERS = {"kl": "Stable Diffusion's autoencoder", "tiny": "the tiny autoencoder",
                "small": "autoencoder trained here", "smooth": "autoencoder trained here"}
HEADLINES = (  # the claims that README.md shows; docs/claims.md has all
    "an only scaled input detects better than a noised one", "an only scaled input localises better than a noised one",
    "I-AUROC falls as omega rises", "at high levels noise changes good images more (hallucination)",
    "anomalous test images lie in higher bins than good ones", "the dynamic step beats fixed steps in P-AUROC",
    "the dynamic step beats fixed steps in I-AUROC", "domain adaptation helps a scaled input",
    "downscaling helps more than domain adaptation", "both together are best",
    "anomalies are localised regardless of their scale", "better localisation than each baseline",
)


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
    verdict = f"**{row['verdict']}**" if row["verdict"] in ("reproduced", "holds") else row["verdict"]
    if row["verdict"] == "not tested":
        return verdict
    return f"{verdict}: {mean_and_spread(row['measured'], row['spread'], 2, '+')}"


def rule(up: str) -> str:
    """The rule of the verdicts, as d3ad/study/claims.py states it."""
    return "> " + "\n> ".join(claims.__doc__.strip().partition("\n\n")[2].splitlines())


def counts(up: str) -> str:
    """How many claims got which verdict, a row per profile."""
    frames = measured_profiles("claims")
    verdicts = list(dict.fromkeys(verdict for frame in frames.values() for verdict in frame["verdict"]))
    rows = [[f"`{profile}`", *((frame["verdict"] == verdict).sum() for verdict in verdicts)]
            for profile, frame in frames.items()]
    return markdown_table(["", *verdicts], rows)


def baseline_files(up: str) -> str:
    """The fourteen baselines: file, paper, whose networks."""
    rows = []
    for name, (module, _, needs_anomalib) in BASELINES.items():
        file = f"d3ad/baselines/{module}.py"
        docstring = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8"))) or ""
        first = " ".join(docstring.partition("\n\n")[0].split()).removesuffix(".").partition("; anomalib's")[0]
        rows.append([f"[{name}]({up}{file})", first, "anomalib's networks" if needs_anomalib else "written here"])
    return markdown_table(["", "what it is", "code"], rows)


def baselines(up: str) -> str:
    """D3AD and its baselines, a table per profile: best PRO (without masks: I-AUROC) first, the best numbers bold."""
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


def _budget(rows: pd.DataFrame) -> str:
    if rows["steps_asked"].isna().all():
        return "—"
    done, asked = rows["steps"].mean(), rows["steps_asked"].mean()
    return f"{done:.0f} of {asked:.0f}" if asked else "none needed"


def _places(means: pd.DataFrame, shown: dict[str, str]) -> str:
    """Where D3AD stands among the methods, its own variants left out."""
    methods = means[[name == "D3AD" or not name.startswith("D3AD") for name in means.index]]
    if len(methods) < 2 or "D3AD" not in methods.index:
        return ""
    places = []
    for metric, title in shown.items():
        values = methods[f"measured_{metric}"]
        first = values.idxmax()
        place = f"{values.rank(ascending=False)['D3AD']:.0f} in {title}"
        places.append(place if first == "D3AD" else f"{place} (first: {first})")
    return f"D3AD's place among {len(methods)} methods: {', '.join(places)}."


def text_against_code(up: str) -> str:
    """Where the paper's text and the authors' code differ, and what each choice changes in PRO and I-AUROC."""
    frames = measured_profiles("text_against_code")
    keys = ["difference", "paper", "authors_code", "here", "changed_to"]
    effects: dict[tuple, dict[str, str]] = {}
    for profile, frame in frames.items():
        for _, row in frame.iterrows():
            key = tuple("" if pd.isna(row[name]) else str(row[name]) for name in keys)
            changes = [mean_and_spread(row.get(f"effect_{metric}"), sign="+") for metric in METRICS]
            effects.setdefault(key, {})[profile] = " / ".join(changes)
    rows = [[*key, *(by_profile.get(profile, "—") for profile in frames)] for key, by_profile in effects.items()]
    header = ["where they differ", "text", "authors' code", "here", "changed to"]
    return markdown_table([*header, *(f"`{profile}`" for profile in frames)], rows)


def own_part(up: str) -> str:
    """The drawn part of notebook 09 that no profile trains on: what the detector flags."""
    frame = table("demo", "own_parts")
    if frame is None:
        return "Not measured."
    rows = [[row.kind, row.parts, f"{row.flagged:.0f}",
             "" if pd.isna(row.measured_i_auroc) else f"{row.measured_i_auroc:.1f}"] for row in frame.itertuples()]
    return markdown_table(["parts", "number", "flagged, in percent", "I-AUROC, in percent"], rows)


def speed(up: str) -> str:
    """Images per second at the paper's sizes, from the machine measured last."""
    try:
        rows = kept("inference", "paper")
    except FileNotFoundError:
        return "Not measured."
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


def presets(up: str) -> str:
    """What each preset costs in quality, a table per profile that has measured it."""
    parts = []
    for profile, frame in measured_profiles("presets").items():
        rows = [[f"`{row['method']}`", *(mean_and_spread(row[f"measured_{m}"], row[f"spread_{m}"]) for m in METRICS)]
                for _, row in over_seeds(of_split(profile, frame)).iterrows()]
        parts.append(f"`{profile}`, in percent:\n\n" + markdown_table(["", *METRICS.values()], rows))
    return "\n\n".join(parts) or "Not measured."


def with_blocks(readme: str) -> str:
    """The README's text with its blocks made anew."""
    for name, block in BLOCKS.items():
        mark = MARK.format(name)
        before, after = readme.split(mark)
        readme = f"{before}{mark}\n{block()}\n{END}{after.split(END, 1)[1]}"
    return readme


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_blocks(page.read_text(encoding="utf-8"), up_from(page)), encoding="utf-8")
