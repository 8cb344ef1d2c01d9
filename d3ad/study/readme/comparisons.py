"""D3AD beside other methods, the paper's text beside the authors' code, one split of the tiles beside the other."""
import ast

import pandas as pd

from d3ad.baselines import BASELINES, baseline_class
from d3ad.infra.files import ROOT
from d3ad.study.ablations import TITLES
from d3ad.study.ranking import over_seeds, partly, rankable
from d3ad.study.readme import measured
from d3ad.study.readme.cells import markdown_table, mean_and_spread, seeds_text
from d3ad.study.settings import Study

SEEN = "training images seen, of those its paper asks for"


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
    for profile, frame in measured.frames("benchmark").items():
        frame = measured.of_split(profile, measured.with_long(profile, frame))
        single = frame[frame["category"] != "Average"]
        means = over_seeds(frame).set_index("method")
        shown = {metric: title for metric, title in TITLES.items() if means[f"measured_{metric}"].notna().any()}
        ranked = set(rankable(frame)["method"])
        columns = {title: _bold_best(means, metric, ranked) for metric, title in shown.items()}
        metric = list(shown)[-1]
        means = means.sort_values(f"measured_{metric}", ascending=False, kind="stable")
        seeds = measured.table(profile, "benchmark_seeds")
        if single["seed"].nunique() == 1 and seeds is not None and seeds["seed"].nunique() > 1:
            names = ", ".join(dict.fromkeys(seeds.loc[seeds["category"] != "Average", "category"]))
            title = f"{shown[metric]}, {names}, {seeds_text(seeds)}"
            columns[title] = _bold_best(over_seeds(seeds).set_index("method"), metric, ranked)
        columns[SEEN] = {method: _budget(profile, rows) for method, rows in single.groupby("method")}
        rows = [[method, *(column.get(method, "—") for column in columns.values())] for method in means.index]
        title = f"### `{profile}`: {', '.join(dict.fromkeys(single['dataset']))}"
        categories = single["category"].nunique()
        of = f"mean of {categories} categories" if categories > 1 else f"{single['category'].iloc[0]} alone"
        about = f"In percent, {seeds_text(single)}, {of}."
        places = _places(means[means.index.isin(ranked)], shown)
        parts += [title, f"{about} {places}".strip(), markdown_table(["", *columns], rows)]
        parts += _measured_in_part(profile, single, shown)
    return "\n\n".join(parts)


def _measured_in_part(profile: str, single: pd.DataFrame, shown: dict[str, str]) -> list[str]:
    """All methods on each category that not all of them were measured on, a title and a table each."""
    parts = []
    for (dataset, category), rows in single.groupby(["dataset", "category"], sort=False):
        if not rows["method"].isin(partly(single)).any():
            continue
        ranked = set(rankable(rows)["method"])
        means = over_seeds(rows).set_index("method").sort_values(f"measured_{list(shown)[-1]}", ascending=False)
        columns = {title: _bold_best(means, metric, ranked) for metric, title in shown.items()}
        columns[SEEN] = {name: _budget(profile, own) for name, own in rows.groupby("method")}
        parts += [f"#### `{profile}`: {dataset}, {category} alone",
                  markdown_table(["", *columns], [[name, *(column[name] for column in columns.values())]
                                                  for name in means.index])]
    return parts


def _bold_best(means: pd.DataFrame, metric: str, ranked: set[str]) -> dict[str, str]:
    """A mean and its spread per method; the best of `ranked` bold."""
    values, spreads = means[f"measured_{metric}"], means[f"spread_{metric}"]
    best = values.index.isin(ranked) & (values.round(1) == values[values.index.isin(ranked)].round(1).max())
    return {method: ("**{}**" if best[method] else "{}").format(mean_and_spread(values[method], spreads[method]))
            for method in means.index}


def _budget(profile: str, rows: pd.DataFrame) -> str:
    """How far one method's training went, and whether its networks are narrower than its paper's."""
    if rows["images_asked"].isna().all():
        return "—"
    done, asked, name = rows["images"].mean(), rows["images_asked"].mean(), rows["method"].iloc[0]
    if not asked:
        return "none needed"
    narrow = Study.profile(profile).baseline_width < 1 and name in BASELINES and baseline_class(name).on_pixels
    return "short, " * bool(done < asked) + f"{done:,.0f} of {asked:,.0f}" + ", narrow networks" * narrow


def _places(means: pd.DataFrame, shown: dict[str, str]) -> str:
    """Where D3AD stands among the methods, its own variants, DDAD-like among them, left out."""
    methods = means[[name == "D3AD" or not name.startswith(("D3AD", "DDAD-like")) for name in means.index]]
    if len(methods) < 2 or "D3AD" not in methods.index:
        return ""
    places = []
    for metric, title in shown.items():
        values = methods[f"measured_{metric}"]
        first = values.idxmax()
        place = f"{values.rank(ascending=False)['D3AD']:.0f} in {title}"
        places.append(place if first == "D3AD" else f"{place} (best: {first})")
    return f"D3AD's rank among {len(methods)} methods: {', '.join(places)}."


def text_against_code(up: str) -> str:
    """Where the paper's text and the authors' code differ, and what each choice changes in PRO and I-AUROC."""
    frames = measured.frames("text_against_code")
    keys = ["difference", "paper", "authors_code", "here", "changed_to"]
    effects: dict[tuple, dict[str, str]] = {}
    for profile, frame in frames.items():
        for _, row in frame.iterrows():
            key = tuple("" if pd.isna(row[name]) else str(row[name]) for name in keys)
            changes = [mean_and_spread(row.get(f"effect_{metric}"), sign="+") for metric in TITLES]
            effects.setdefault(key, {})[profile] = " / ".join(changes)
    rows = [[*key, *(by_profile.get(profile, "—") for profile in frames)] for key, by_profile in effects.items()]
    header = ["choice", "text", "authors' code", "here", "changed to"]
    return markdown_table([*header, *(f"`{profile}`" for profile in frames)], rows)


def memory(up: str) -> str:
    """What the random split of the magnetic tiles adds to the split by tile."""
    frame = measured.table("mtd", "memory")
    if frame is None:
        return "Not measured."
    rows = [[TITLES[row.metric], f"{row.measured_random:.1f}", f"{row.measured_by_tile:.1f}",
             f"{row.effect:+.1f} [{row.low:+.1f}, {row.high:+.1f}]", row.units] for row in frame.itertuples()]
    return markdown_table(["", "random split", "by tile", "difference, in points", "units"], rows)
