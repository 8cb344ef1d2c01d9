"""The measured parts of README.md and of docs/: made from results/, never typed.

    python -m d3ad.study.readme        # write them anew

A block stands between two markers, `<!-- name: written by python -m d3ad.study.readme -->` and `<!-- end -->`.  It
tells of whatever profiles have results; what a profile lacks is left out, or called "pending" or "not measured".
"""
import ast
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from d3ad.baselines import BASELINES
from d3ad.config import PROFILE_FOLDER, Config
from d3ad.infra.files import ROOT
from d3ad.speed.benchmark import kept
from d3ad.study import paper, verdicts
from d3ad.study.comparison import over_seeds, trained_fully
from d3ad.study.provenance import ARTIFACTS
from d3ad.study.settings import Study, settings_hash, study_profiles

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
    "mvtec-gpu": "whatever categories of MVTec AD lie under `--data-root`; for a GPU, without a hub",
    "visa": "VisA under `--data-root`; for a GPU", "btad": "BTAD under `--data-root`; for a GPU",
    "mvtec": "MVTec AD under `--data-root`; for a GPU",
    "visa-authors": "VisA with the authors' settings for each category, tuned on the test set; for a GPU",
}
FEATURES = {"tf_efficientnet_lite0": "EfficientNet-Lite0", "resnet18": "ResNet-18", "resnet34": "ResNet-34"}
AUTOENCODERS = {"kl": "Stable Diffusion's autoencoder", "tiny": "the tiny autoencoder", "taef2": "TAEF2",
                "small": "autoencoder trained here", "smooth": "autoencoder trained here"}
HEADLINES = (  # the claims that README.md shows; docs/claims.md has all
    "an only scaled input detects better than a noised one", "an only scaled input localises better than a noised one",
    "PRO falls as omega rises", "at high levels noise changes good images more (hallucination)",
    "anomalous test images lie in higher bins than good ones", "the dynamic step beats fixed steps in P-AUROC",
    "the dynamic step beats fixed steps in I-AUROC", "domain adaptation helps a scaled input in PRO",
    "downscaling helps more than domain adaptation in PRO", "guidance helps localisation",
    "anomalies are localised regardless of their scale", "better localisation than each baseline",
)


# --- small helpers

def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown: a | inside a cell is escaped, and no line breaks beside a ±."""
    def text(cell) -> str:
        return str(cell).replace("|", "\\|").replace(" ± ", "\u00a0±\u00a0")

    header = list(header)
    return "\n".join(f"| {' | '.join(map(text, line))} |" for line in [header, ["---"] * len(header), *rows])


def mean_and_spread(mean: float | None, spread: float | None = None, decimals: int = 1, sign: str = "") -> str:
    """A mean over seeds with its standard deviation, "93.4 ± 0.9"; the mean alone for one seed; "—" for nothing."""
    if mean is None or pd.isna(mean):
        return "—"
    text = f"{mean:{sign}.{decimals}f}"
    text = text.lstrip("+-") if not text.strip("+-0.") else text  # no "-0.0"
    return text if spread is None or pd.isna(spread) else f"{text} ± {spread:.{decimals}f}"


def metrics_text(row: pd.Series, prefix: str = "measured") -> str:
    """The three metrics of a row in one cell: "100.0 / 98.6 / 96.0"."""
    return " / ".join(mean_and_spread(row.get(f"{prefix}_{metric}"), row.get(f"spread_{metric}")) for metric in METRICS)


def table(profile: str, name: str) -> pd.DataFrame | None:
    """results/<profile>/<name>.csv, or None where it wasn't measured."""
    file = ROOT / "results" / profile / f"{name}.csv"
    return pd.read_csv(file) if file.exists() else None


def notes(profile: str, name: str) -> dict:
    """results/<profile>/<name>.json; empty where there is none."""
    file = ROOT / "results" / profile / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def measured_profiles(name: str) -> dict[str, pd.DataFrame]:
    """The profiles whose results hold that table, in the order of `study_profiles`, smoke left out."""
    frames = {profile: table(profile, name) for profile in study_profiles() if profile != "smoke"}
    return {profile: frame for profile, frame in frames.items() if frame is not None}


def of_split(profile: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the split that counts first in this profile."""
    return frame[frame["split"] == Study.profile(profile).split]


def seeds_text(frame: pd.DataFrame) -> str:
    count = frame["seed"].nunique()
    return f"{count} seed" + "s" * (count != 1)


def is_current(profile: str) -> bool:
    """Whether the results were computed with the settings that the profile has today."""
    used = {entry["config"] for path, entry in notes(profile, "provenance").items() if path.endswith("/benchmark.csv")}
    return used == {settings_hash(Config.profile(profile), Study.profile(profile))}


def features_of(profile: str) -> str:
    config = Config.profile(profile)
    name = FEATURES.get(config.backbone.split(".")[0], config.backbone)
    return f"{name}, {'trained here' if config.backbone_weights == 'none' else 'ImageNet'}"


def model_of(profile: str) -> str:
    """The model of a profile in a few words."""
    config = Config.profile(profile)
    trained = f"{config.train_steps} steps" if config.train_steps else f"{config.train_epochs} epochs"
    return f"{config.image_size} pixels; {features_of(profile)}; {AUTOENCODERS[config.autoencoder]}; UNet, {trained}"


def data_of(profile: str) -> str:
    """What a profile's data are; for one that DATA doesn't know, the first comment of its file."""
    first = (PROFILE_FOLDER / f"{profile}.toml").read_text(encoding="utf-8").partition("\n")[0]
    return DATA.get(profile, first.lstrip("# "))


# --- blocks; each takes the way up to the repository's root, "" or "../"

def profiles(up: str) -> str:
    """Every profile: data, model, minutes."""
    rows = []
    for profile in study_profiles():
        minutes = notes(profile, "minutes").get("minutes")
        took = f"{sum(minutes.values()):.0f}" if minutes else "not measured"
        model = model_of(profile)
        if profile == "smoke":
            model, took = "tiny", "few"
        rows.append([f"`{profile}`" + " (default)" * (profile == "demo"), data_of(profile), model, took])
    return markdown_table(["profile", "data", "model", "minutes"], rows)


def reported() -> pd.DataFrame:
    """The paper's numbers of D3AD: a row per (dataset, category), Average included."""
    frames = [paper.reported(number) for number in (1, 3, 6, 7)]
    rows = pd.concat([frame[frame["method"] == "D3AD"] for frame in frames])
    return rows.groupby(["dataset", "category"], sort=False)[[f"reported_{metric}" for metric in METRICS]].first()


def results(up: str) -> str:
    """The paper's datasets, reported and measured; then what else was measured."""
    of_paper, rows = reported(), []
    known = list(dict.fromkeys(of_paper.index.get_level_values("dataset")))
    frames = {profile: frame[(frame["method"] == "D3AD") & (frame["category"] != "Average")]
              for profile, frame in measured_profiles("benchmark").items()}

    def measured(profile: str, rows: pd.DataFrame) -> list[str]:
        features = features_of(profile) if is_current(profile) else "settings changed since"
        source = f"[`{profile}`]({up}results/{profile}/benchmark.csv), {seeds_text(rows)}"
        return [metrics_text(over_seeds(rows).iloc[0]), source, features]

    for dataset in known:
        numbers = of_paper.loc[dataset]
        single = numbers.drop("Average")
        parts = {profile: frame[(frame["dataset"] == dataset) & frame["category"].isin(single.index)]
                 for profile, frame in frames.items()}
        parts = {profile: part for profile, part in parts.items() if len(part)}
        whole = [profile for profile, part in parts.items() if set(part["category"]) == set(single.index)]
        first = [f"{dataset}, all {len(single)} categories", metrics_text(numbers.loc["Average"], "reported")]
        rows += [[*first, *measured(profile, parts.pop(profile))] for profile in whole] or [[*first, "pending", "", ""]]
        for profile, part in parts.items():
            names = list(dict.fromkeys(part["category"]))
            if len(names) > 1:
                rows.append([f"{dataset}, mean of {len(names)}: {', '.join(names)}",
                             metrics_text(single.loc[names].mean(), "reported"), *measured(profile, part)])
            if len(names) <= MAX_CATEGORIES:
                rows += [[f"{dataset}, {name}", metrics_text(single.loc[name], "reported"),
                          *measured(profile, part[part["category"] == name])] for name in names]
    for profile, frame in frames.items():
        others = frame[~frame["dataset"].isin(known)]
        for split, part in others.groupby("split", sort=False):
            names = list(dict.fromkeys(part["category"]))
            title = ", ".join(dict.fromkeys(part["dataset"]))
            if Study.profile(profile).source == "synthetic":
                title = "Synthetic datasets"
            title += f", mean of {len(names)} categories" if len(names) > 1 else ""
            title += f", split {split.replace('_', ' ')}" if others["split"].nunique() > 1 else ""
            rows.append([title, "not in the paper", *measured(profile, part)])
    return markdown_table(["I-AUROC / P-AUROC / PRO, in percent", "reported", "measured", "profile", "features"], rows)


def state(up: str) -> str:
    """From which commit the measured numbers are, a line per profile."""
    lines = []
    for profile in measured_profiles("benchmark"):
        entries = notes(profile, "provenance")
        commits = sorted({entry["commit"] for path, entry in entries.items() if path.startswith("results/")})
        changed = "" if is_current(profile) else "; the profile's settings have changed since"
        lines.append(f"- `{profile}`: commit {', '.join(commits) or 'unknown'}{changed}.")
    return "\n".join(lines)


def gallery(up: str) -> str:
    """Every figure as a thumbnail, every table as a cell below: with its notebook and minutes."""
    minutes = notes("demo", "minutes").get("minutes", {})
    cells = []
    for name, (notebook, shows) in ARTIFACTS.items():
        number, path = name.lstrip("figtable").lstrip("0"), f"figures/demo/{name}.png"
        took = f", {minutes[notebook]:.1f} min" if notebook in minutes else ""
        kind = "Figure" if name.startswith("fig") else "Table"
        lines = [f"**{kind} {number}**, [{notebook[:2]}]({up}notebooks/{notebook}.ipynb){took}", shows]
        if kind == "Figure" and (ROOT / path).exists():
            lines.insert(0, f'<a href="{up}{path}"><img src="{up}{path}" width="{THUMBNAIL}"></a>')
        lines += [" ".join(f"[`{profile}`]({up}results/{profile}/{name}.md)" for profile in study_profiles()
                           if (ROOT / f"results/{profile}/{name}.md").exists())]
        cells.append("<br>".join(filter(None, lines)))
    cells += [""] * (-len(cells) % PER_ROW)
    return markdown_table([""] * PER_ROW, [cells[i:i + PER_ROW] for i in range(0, len(cells), PER_ROW)])


def ledger(up: str, headlines: tuple[str, ...] = ()) -> str:
    """The claims: a row each, a column per profile that has measured any; `headlines`: only these."""
    frames = {profile: frame.set_index("claim") for profile, frame in ledgers().items()}
    if not frames:
        return "No profile has been measured under this rule yet."
    chosen = headlines or tuple(dict.fromkeys(claim for frame in frames.values() for claim in frame.index))
    rows = []
    for claim in chosen:
        about = next((frame.loc[claim] for frame in frames.values() if claim in frame.index), None)
        if about is None:
            continue
        says = "" if pd.isna(about["reported"]) else about["reported"]
        cells = [_verdict(frame.loc[claim]) if claim in frame.index else "not tested" for frame in frames.values()]
        margin = [] if headlines else [f"{about['margin']:g} ({_reason(about)})"]
        rows.append([f"{claim} ({about['where']})", says, about["quantity"], *margin, *cells])
    header = ["claim", "the paper", "measured in", *([] if headlines else ["margin"])]
    return markdown_table([*header, *(f"`{profile}`" for profile in frames)], rows)


def ledgers() -> dict[str, pd.DataFrame]:
    """The profiles' ledgers; one whose verdicts come from an older rule, without intervals, is left out."""
    return {profile: frame for profile, frame in measured_profiles("claims").items() if "margin_reason" in frame}


def _reason(row: pd.Series) -> str:
    return str(row["margin_reason"]).removeprefix(f"{row['margin']:g}: ")


def _verdict(row: pd.Series) -> str:
    """ "**holds**: +2.5 [+1.0, +4.1]"; with the chance of seeing the paper's effect where nothing was decided."""
    verdict = f"**{row['verdict']}**" if row["verdict"] in ("reproduced", "holds") else row["verdict"]
    if row["verdict"] == "not tested":
        return verdict
    effect, low, high = (mean_and_spread(row[name], None, 2, "+") for name in ("effect", "low", "high"))
    seen = f"; power {100 * row['power']:.0f} %" if row["verdict"] == "inconclusive" and pd.notna(row["power"]) else ""
    return f"{verdict}: {effect} [{low}, {high}]{seen}"


def rule(up: str) -> str:
    """The rule of the verdicts, as d3ad/study/verdicts.py states it."""
    return "> " + "\n> ".join(verdicts.__doc__.strip().partition("\n\n")[2].splitlines())


def counts(up: str) -> str:
    """How many claims got which verdict, a row per profile."""
    rows = [[f"`{profile}`", *((frame["verdict"] == word).sum() for word in verdicts.VERDICTS)]
            for profile, frame in ledgers().items()]
    return markdown_table(["", *verdicts.VERDICTS], rows)


def memory(up: str) -> str:
    """What the random split of the magnetic tiles adds to the split by tile."""
    frame = table("mtd", "memory")
    if frame is None:
        return "Not measured."
    rows = [[METRICS[row.metric], f"{row.measured_random:.1f}", f"{row.measured_by_tile:.1f}",
             f"{row.effect:+.1f} [{row.low:+.1f}, {row.high:+.1f}]", row.units] for row in frame.itertuples()]
    return markdown_table(["", "random split", "by tile", "memory, in points", "units"], rows)


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
    for profile, frame in measured_profiles("benchmark").items():
        frame = of_split(profile, frame)
        single = frame[frame["category"] != "Average"]
        means = over_seeds(frame).set_index("method")
        shown = {metric: title for metric, title in METRICS.items() if means[f"measured_{metric}"].notna().any()}
        ranked = set(trained_fully(frame)["method"])
        columns = {title: _bold_best(means, metric, ranked) for metric, title in shown.items()}
        metric = list(shown)[-1]
        means = means.sort_values(f"measured_{metric}", ascending=False, kind="stable")
        seeds = table(profile, "benchmark_seeds")
        if single["seed"].nunique() == 1 and seeds is not None:
            names = ", ".join(dict.fromkeys(seeds.loc[seeds["category"] != "Average", "category"]))
            title = f"{shown[metric]}, {names}, {seeds_text(seeds)}"
            columns[title] = _bold_best(over_seeds(seeds).set_index("method"), metric, ranked)
        columns["training images, of those asked for"] = {method: _budget(rows)
                                                          for method, rows in single.groupby("method")}
        rows = [[method, *(column.get(method, "—") for column in columns.values())] for method in means.index]
        title = f"### `{profile}`: {', '.join(dict.fromkeys(single['dataset']))}"
        categories = single["category"].nunique()
        about = f"In percent, {seeds_text(single)}" + f", mean of {categories} categories" * (categories > 1) + "."
        places = _places(means[means.index.isin(ranked)], shown)
        parts += [title, f"{about} {places}".strip(), markdown_table(["", *columns], rows)]
    return "\n\n".join(parts)


def _bold_best(means: pd.DataFrame, metric: str, ranked: set[str]) -> dict[str, str]:
    """A mean and its spread per method; the best of `ranked` bold."""
    values, spreads = means[f"measured_{metric}"], means[f"spread_{metric}"]
    best = values.round(1) == values[values.index.isin(ranked)].round(1).max()
    return {method: ("**{}**" if best[method] else "{}").format(mean_and_spread(values[method], spreads[method]))
            for method in means.index}


def _budget(rows: pd.DataFrame) -> str:
    if rows["images_asked"].isna().all():
        return "—"
    done, asked = rows["images"].mean(), rows["images_asked"].mean()
    word = "short, " * bool(done < asked)
    return f"{word}{done:,.0f} of {asked:,.0f}" if asked else "none needed"


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
    names = {"reference": "the reference implementation", "PatchCore": "PatchCore (anomalib)",
             "EfficientAD": "EfficientAD (anomalib)"}
    cells = [[names.get(row["preset"], f"`{row['preset']}`"), f"{row['images_per_second']:.2f}",
              f"{row['speedup']:.2f}", row.get("precision", "float32"),
              row.get("num_steps", 10 if row["preset"] == "reference" else "")]
             for row in rows]
    machine = f"{about['device']}, {about['threads']} threads, {about['memory_gb']:.0f} GB; random weights:"
    header = ["", "images per second", "times the reference", "precision", "steps S"]
    return f"{machine}\n\n{markdown_table(header, cells)}"


def growth(up: str) -> str:
    """Time and memory against the number of photographs, training images and pixels, with the picture."""
    try:
        rows = kept("growth", "paper")
    except FileNotFoundError:
        return "Not measured."
    about = rows[0]
    cells = [[row["way"], f"{row['seconds']:.2f}", f"{1000 * row['seconds_per_image']:.1f}", f"{row['megabytes']:,}"]
             for row in rows]
    return (f"{about['device']}, {about['threads']} threads, the demo profile's networks:\n\n"
            + markdown_table(["", "seconds", "milliseconds per image", "MB"], cells)
            + f"\n\n![how time and memory grow]({up}results/benchmark/growth.png)")


def presets(up: str) -> str:
    """What each preset costs in quality, a table per profile that has measured it."""
    parts = []
    for profile, frame in measured_profiles("presets").items():
        rows = [[f"`{row['method']}`", *(mean_and_spread(row[f"measured_{m}"], row[f"spread_{m}"]) for m in METRICS)]
                for _, row in over_seeds(of_split(profile, frame)).iterrows()]
        parts.append(f"`{profile}`, in percent:\n\n" + markdown_table(["", *METRICS.values()], rows))
    return "\n\n".join(parts) or "Not measured."


BLOCKS: dict[str, Callable[[str], str]] = {
    "profiles": profiles, "results": results, "state": state, "gallery": gallery,
    "headlines": partial(ledger, headlines=HEADLINES), "ledger": ledger, "rule": rule, "counts": counts,
    "memory": memory,
    "baseline-files": baseline_files, "baselines": baselines,
    "text-against-code": text_against_code, "own-part": own_part, "speed": speed, "growth": growth, "presets": presets,
}


def pages() -> list[Path]:
    """README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def with_blocks(text: str, up: str = "") -> str:
    """A page's text with its blocks made anew.  up: the way from the page to the repository's root, "" or "../"."""
    return MARKED.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](up)}\n{match[3]}", text)


def up_from(page: Path) -> str:
    """The way from a page to the repository's root."""
    return "../" * (len(page.relative_to(ROOT).parts) - 1)


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_blocks(page.read_text(encoding="utf-8"), up_from(page)), encoding="utf-8")
