"""The profiles, what was measured with each, and every figure and table."""
from pathlib import Path

import pandas as pd

from d3ad.config import Config
from d3ad.infra.files import ROOT
from d3ad.infra.profiles import PROFILE_FOLDER
from d3ad.study import paper
from d3ad.study.ablations import TITLES
from d3ad.study.provenance import ARTIFACTS
from d3ad.study.ranking import over_seeds
from d3ad.study.readme import measured
from d3ad.study.readme.cells import markdown_table, metrics_text, seeds_text
from d3ad.study.settings import Study, features_in_words, study_profiles, training_in_words
from d3ad.study.tables import NOTHING_MEASURED

THUMBNAIL, PER_ROW = 200, 4  # pixels; pictures in a row of the gallery
MAX_CATEGORIES = 6  # of one of the paper's datasets, measured by one profile, that are shown one by one
DATA = {
    "smoke": "a handful of synthetic images; for the tests; its numbers mean nothing",
    "demo": "synthetic, drawn on the spot, in the layouts of VisA, BTAD and MVTec AD",
    "mtd": "magnetic tiles, real photographs, under `--data-root`",
    "elpv": "solar cells, real photographs without masks, from the pip package elpv-dataset, which `.venv` has",
    "mvtec-cpu": "whatever categories of MVTec AD lie under `--data-root`",
    "mvtec-taef2": "whatever categories of MVTec AD lie under `--data-root`; needs TAEF2's weights, 5 MB",
    "mvtec-gpu": "whatever categories of MVTec AD lie under `--data-root`; for a GPU, without a hub",
    "visa": "VisA under `--data-root`; for a GPU", "btad": "BTAD under `--data-root`; for a GPU",
    "mvtec": "MVTec AD under `--data-root`; for a GPU",
    "visa-authors": "VisA with the authors' settings for each category, tuned on the test set; for a GPU",
}
METRICS_IN_WORDS = ("I-AUROC says how well scores separate defective images from good ones, P-AUROC how well maps "
                    "separate defective pixels from good ones; guessing gives 50, and 100 is perfect. PRO is the share "
                    "of each defective region that is found, averaged over regions and over false positive rates up "
                    "to 0.3.")
AUTOENCODERS = {"kl": "Stable Diffusion's autoencoder", "tiny": "the tiny autoencoder", "taef2": "TAEF2",
                "small": "autoencoder trained here", "smooth": "autoencoder trained here"}


def profiles(up: str) -> str:
    """Every profile: data, model, minutes, and how much was measured on which machine."""
    rows = []
    for profile in study_profiles():
        notes = measured.notes(profile, "minutes")
        minutes = notes.get("total") or sum(notes.get("minutes", {}).values())
        took = f"{minutes:.0f}" if minutes else "not measured"
        ran = sorted(name[:2] for name in notes.get("minutes", {}))
        if ran and len(ran) < len(list((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))):
            took += f" (notebook{'s' * (len(ran) > 1)} {', '.join(ran)})"
        model = model_of(profile)
        if profile == "smoke":
            model, took = "tiny", "few"
        rows.append([f"`{profile}`" + " (default)" * (profile == "demo"), data_of(profile), model, took,
                     measured_on(profile)])
    return markdown_table(["profile", "data", "model", "minutes", "measured on"], rows)


def measured_on(profile: str) -> str:
    """How many categories a profile's results have, and the processor or GPU that they were computed on."""
    frame = measured.table(profile, "benchmark")
    if frame is None or profile == "smoke":
        return ""
    count = frame.loc[frame["category"] != "Average", ["dataset", "category"]].drop_duplicates().shape[0]
    machines = {about["machine"]["gpu"] if about["machine"]["gpu"] != "none" else about["machine"]["processor"]
                for about in measured.notes(profile, "provenance").values()}
    return f"{count} categor{'y' if count == 1 else 'ies'}; {', '.join(sorted(machines))}"


def model_of(profile: str) -> str:
    """The model of a profile in a few words."""
    config = Config.profile(profile)
    trained = training_in_words(config, Study.profile(profile))
    networks = f"{features_in_words(config)}; {AUTOENCODERS[config.autoencoder]}; UNet, {trained}"
    return f"{config.image_size} pixels; {networks}"


def data_of(profile: str) -> str:
    """What a profile's data are; for one that DATA doesn't know, the first comment of its file."""
    first = (PROFILE_FOLDER / f"{profile}.toml").read_text(encoding="utf-8").partition("\n")[0]
    return DATA.get(profile, first.lstrip("# "))


def results(up: str) -> str:
    """The paper's datasets, reported and measured; then what else was measured.  Below, which PRO that is."""
    of_paper, rows, exact = reported(), [], {}
    known = list(dict.fromkeys(of_paper.index.get_level_values("dataset")))
    frames = {profile: frame[(frame["method"] == "D3AD") & (frame["category"] != "Average")]
              for profile, frame in measured.frames("benchmark").items()}

    def cells(profile: str, rows: pd.DataFrame, beside_reported: bool = True) -> list[str]:
        row = over_seeds(rows).iloc[0]
        if beside_reported:
            exact[profile] = pd.isna(row.get("measured_pro_200"))
            if not exact[profile]:
                row = row.drop(["measured_pro", "spread_pro"]).rename(lambda name: name.replace("pro_200", "pro"))
        features = (features_in_words(Config.profile(profile)) if measured.is_current(profile)
                    else "settings changed since")
        source = f"[`{profile}`]({up}results/{profile}/benchmark.csv), {seeds_text(rows)}"
        return [metrics_text(row), source, features]

    for dataset in known:
        numbers = of_paper.loc[dataset]
        single = numbers.drop("Average")
        parts = {profile: frame[(frame["dataset"] == dataset) & frame["category"].isin(single.index)]
                 for profile, frame in frames.items()}
        parts = {profile: part for profile, part in parts.items() if len(part)}
        whole = [profile for profile, part in parts.items() if set(part["category"]) == set(single.index)]
        first = [f"{dataset}, all {len(single)} categories", metrics_text(numbers.loc["Average"], "reported")]
        rows += [[*first, *cells(profile, parts.pop(profile))] for profile in whole] or [[*first, "pending", "", ""]]
        one_by_one: dict[str, dict[str, list[str]]] = {}  # of each category and profile: the cells
        for profile, part in parts.items():
            names = list(dict.fromkeys(part["category"]))
            if len(names) > 1:
                rows.append([f"{dataset}, mean of {len(names)}: {', '.join(names)}",
                             metrics_text(single.loc[names].mean(), "reported"), *cells(profile, part)])
            for name in names if len(names) <= MAX_CATEGORIES else []:
                one_by_one.setdefault(name, {})[profile] = cells(profile, part[part["category"] == name])
        rows += [[f"{dataset}, {name}", metrics_text(single.loc[name], "reported"), *_stacked(found)]
                 for name, found in one_by_one.items()]
    for profile, frame in frames.items():
        others = frame[~frame["dataset"].isin(known)]
        for split, part in others.groupby("split", sort=False):
            names = list(dict.fromkeys(part["category"]))
            title = ", ".join(dict.fromkeys(part["dataset"]))
            if Study.profile(profile).source == "synthetic":
                title = "Synthetic datasets"
            title += f", mean of {len(names)} categories" if len(names) > 1 else ""
            if others["split"].nunique() > 1:
                title += ", split by tile" if split == "by_tile" else f", {split} split"
            rows.append([title, "not in the paper", *cells(profile, part, beside_reported=False)])
    table = markdown_table(["I-AUROC / P-AUROC / PRO, in percent", "reported", "measured", "profile", "features"], rows)
    more = (f"[fourteen baselines]({up}docs/baselines.md), "
            f"[each number's commit]({up}docs/choices.md#where-each-number-comes-from)")
    return f"{table}\n\n{_which_pro(exact)} {METRICS_IN_WORDS} More: {more}."


def _stacked(found: dict[str, list[str]]) -> list[str]:
    """The cells of one profile; of several a line each, short enough not to be broken, or they would not align."""
    if len(found) == 1:
        return next(iter(found.values()))
    features = dict.fromkeys(cells[2] for cells in found.values())
    return ["<br>".join(cells[0] for cells in found.values()), "<br>".join(f"`{profile}`" for profile in found),
            *(features if len(features) == 1 else ["by profile"])]


def _which_pro(exact: dict[str, bool]) -> str:
    """Which PRO the measured column shows, in a sentence.  exact: of each profile with rows that have a reported PRO,
    whether its PRO is the exact one.
    """
    if all(exact.values()):
        return "PRO is exact."
    others = ", ".join(f"`{profile}`" for profile, is_exact in exact.items() if is_exact)
    return ("PRO is exact, except beside a reported PRO: there it has 200 thresholds, as in the authors' code"
            + (f" (except in {others}, which kept only the exact one)." if others else "."))


def reported() -> pd.DataFrame:
    """The paper's numbers of D3AD: a row per (dataset, category), Average included."""
    frames = [paper.reported(number) for number in (1, 3, 6, 7)]
    rows = pd.concat([frame[frame["method"] == "D3AD"] for frame in frames])
    return rows.groupby(["dataset", "category"], sort=False)[[f"reported_{metric}" for metric in TITLES]].first()


def own_part(up: str) -> str:
    """The drawn part of notebook 09, which is in no profile's dataset: what the detector flags."""
    frame = measured.table("demo", "own_parts")
    if frame is None:
        return "Not measured."
    rows = [[row.kind, row.parts, f"{row.flagged:.0f}",
             "" if pd.isna(row.measured_i_auroc) else f"{row.measured_i_auroc:.1f}"] for row in frame.itertuples()]
    return markdown_table(["parts", "number", "flagged, in percent", "I-AUROC, in percent"], rows)


def own_parts(up: str) -> str:
    """Parts fitted with default settings by scripts/own_parts.py: what share of the defects is found at which rate of
    false alarms, for each way to compare features.
    """
    frame = measured.table("parts", "own_parts")
    if frame is None:
        return "Not measured."

    def percent(value: float) -> str:
        return "" if pd.isna(value) else f"{value:.1f}"

    rows = []
    for (part, distance), rates in frame.groupby(["part", "feature_distance"], sort=False):
        first = rates.iloc[0]
        cells = [cell for _, row in rates.iterrows()
                 for cell in (percent(row["measured_found"]), percent(row["measured_false_alarms"]))]
        rows.append([part, distance, f"{first['trained_on']} + {first['set_threshold']}", first["defective"], *cells,
                     "" if pd.isna(first["measured_i_auroc"]) else metrics_text(first), f"{first['minutes']:.0f}"])
    columns = [title for rate in frame["asked_false_alarms"].unique()
               for title in (f"found, {rate:g} % asked", f"false alarms, {rate:g} % asked")]
    return markdown_table(["part", "distance", "good ones: training and calibration + threshold", "defective ones",
                           *columns, "I-AUROC / P-AUROC / PRO", "minutes"], rows)


def state(up: str) -> str:
    """From which commit the measured numbers are, a line per profile."""
    lines = []
    for profile in measured.frames("benchmark"):
        entries = measured.notes(profile, "provenance")
        commits = sorted({entry["commit"] for path, entry in entries.items() if path.startswith("results/")})
        changed = "" if measured.is_current(profile) else "; the profile's settings have changed since"
        lines.append(f"- `{profile}`: commit {', '.join(commits) or 'unknown'}{changed}.")
    return "\n".join(lines)


def gallery(up: str) -> str:
    """Every figure as a thumbnail, every table as a cell below: with its notebook and minutes."""
    minutes = measured.notes("demo", "minutes").get("minutes", {})
    cells = []
    for name, (notebook, shows) in ARTIFACTS.items():
        number, path = name.lstrip("figtable").lstrip("0"), f"figures/demo/{name}.png"
        took = f", {minutes[notebook]:.1f} min" if notebook in minutes else ""
        kind = "Figure" if name.startswith("fig") else "Table"
        lines = [f"**{kind} {number}**, [{notebook[:2]}]({up}notebooks/{notebook}.ipynb){took}", shows]
        if kind == "Figure" and (ROOT / path).exists():
            lines.insert(0, f'<a href="{up}{path}"><img src="{up}{path}" width="{THUMBNAIL}"></a>')
        lines += [" ".join(f"[`{profile}`]({up}results/{profile}/{name}.md)" for profile in study_profiles()
                           if _has_numbers(ROOT / f"results/{profile}/{name}.md"))]
        cells.append("<br>".join(filter(None, lines)))
    cells += [""] * (-len(cells) % PER_ROW)
    return markdown_table([""] * PER_ROW, [cells[i:i + PER_ROW] for i in range(0, len(cells), PER_ROW)])


def _has_numbers(table: Path) -> bool:
    """Whether a table was written, and something in it was measured."""
    return table.exists() and NOTHING_MEASURED not in table.read_text(encoding="utf-8")
