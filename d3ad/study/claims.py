"""Every claim of the paper that could be tested, each with how it is measured and the reason of its margin."""
from dataclasses import replace

import numpy as np
import pandas as pd

from d3ad.study import paper
from d3ad.study.ablations import TITLES
from d3ad.study.evidence import (
    BINS,
    NOISED_CHANGE,
    SCALED_CHANGE,
    Effect,
    Evidence,
    averaged,
    extreme,
    over_rounds,
)
from d3ad.study.verdicts import Claim, judged

ROUNDING = f"minus {paper.ROUNDING}: the paper prints one decimal"
TABLE_1 = ("SPADE", "PaDiM", "RD4AD", "PatchCore", "DRAEM")
TABLE_3 = ("FastFlow", "CFA", "PatchCore", "RD4AD", "RD++")
NEEDS_DDAD = "DDAD itself: DDAD-like has D3AD's networks"
PIXELS = ("AnoDDPM", "DiffusionAD")  # their diffusion runs on pixels; DDAD has D3AD's networks here


def reported(table: int, method: str, metric: str, category: str = "Average") -> float:
    """A number that the paper prints."""
    rows = paper.reported(table).set_index(["method", "category"])
    return float(rows.loc[(method, category), f"reported_{metric}"])


def _pair(table: int, better: str, worse: str, metric: str) -> tuple[str, float]:
    """Two of the paper's numbers in words, and how far the first is ahead."""
    first, second = (reported(table, name, metric) for name in (better, worse))
    return f"{first} against {second}", round(first - second, 2)


# --- measures

def gain(better: str, worse: str, metric: str, dataset: str | None = None):
    """How far one method is ahead of another."""
    return lambda evidence: evidence.gain(better, worse, metric, dataset)


def ahead_of(metric: str, *names: str, dataset: str | None = None):
    """How far D3AD is ahead of the best of these baselines; None where one of them wasn't measured.

    None too where it is ahead of one that got less training, or narrower networks, than its paper asks for: that lead
    proves nothing.
    """
    def measure(evidence: Evidence) -> Effect | None:
        shared = evidence.on_common_runs([(name, metric) for name in ("D3AD", *names)])
        lead = extreme(shared.gain("D3AD", name, metric, dataset) for name in names)
        weakened = set(names) & evidence.weakened
        return None if lead is None or (weakened and lead.values[0] > 0) else lead
    return measure


def ahead_of_any(metric: str, *names: str):
    """`ahead_of` those of these baselines that prove something: that got what their papers ask for, or are ahead."""
    def measure(evidence: Evidence) -> Effect | None:
        proving = [name for name in names if ahead_of(metric, name)(evidence) is not None]
        full = [name for name in proving if name not in evidence.weakened]
        leads = (ahead_of(metric, *some)(evidence) for some in (proving, full) if some)
        return next((lead for lead in leads if lead is not None), None)
    return measure


def ahead_of_all(metric: str):
    """`ahead_of` all baselines that were measured; None where it is ahead and one of Table 1's is missing: being behind
    proves something without it.
    """
    def measure(evidence: Evidence) -> Effect | None:
        names = [name for name in evidence.baselines if name in evidence.numbers]
        if not names:
            return None
        lead = ahead_of(metric, *names)(evidence)
        proves = lead is not None and (set(TABLE_1) <= set(names) or lead.values[0] < 0)
        return lead if proves else None
    return measure


def behind(metric: str, name: str, dataset: str | None = None):
    """How far a baseline is ahead of D3AD."""
    def measure(evidence: Evidence) -> Effect | None:
        lead = evidence.gain(name, "D3AD", metric, dataset)
        return None if lead is None or (name in evidence.weakened and lead.values[0] < 0) else lead
    return measure


def over_best_fixed(metric: str):
    """How far the dynamic step is ahead of the fixed one that was best on validation data, which it names."""
    def measure(evidence: Evidence) -> Effect | None:
        fixed = evidence.fixed.get(metric, "")
        lead = evidence.gain("D3AD", fixed, metric)
        return lead and replace(lead, note=f"over the fixed step {fixed}, chosen on validation data")
    return measure


def least_of_four(evidence: Evidence) -> Effect | None:
    """How far DS + DA is ahead of the best of the three others, in the metric where it is least ahead."""
    return extreme(evidence.gain("DS + DA", other, metric) for metric in TITLES
                   for other in ("DS", "DA", "no DS, no DA"))


def more_by_scaling(metric: str):
    """How much more DS alone adds than DA alone."""
    return lambda evidence: evidence.gain("DS", "DA", metric)


def evenness(evidence: Evidence) -> Effect | None:
    """Minus the distance between the best and the worst size class, in points of PRO."""
    classes = [("D3AD", f"pro_{size}") for size in ("small", "medium", "large")]
    shared = evidence.on_common_runs(classes)
    sizes = [shared.combined(lambda x: x, [each]) for each in classes]
    best, worst = extreme(sizes, np.max), extreme(sizes)
    return best and Effect(worst.values - best.values, best.keys)


def omegas(evidence: Evidence) -> list[str]:
    """Names of the measured shares of noise, rising."""
    return sorted((name for name in evidence.numbers if name.startswith("omega ")), key=lambda name: float(name[6:]))


def falls_with_omega(metric: str):
    """Minus the slope of a metric over omega: points lost from omega 0 to 1 on the straight line that fits best."""
    def measure(evidence: Evidence) -> Effect | None:
        names = omegas(evidence)
        if len(names) < 3:
            return None
        x = np.array([float(name[6:]) for name in names])
        slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        return evidence.combined(lambda *curve: -np.tensordot(slope, np.stack(curve), 1),
                                 [(name, metric) for name in names])
    return measure


def best_without_noise(metric: str):
    """How far omega 0 is ahead of the best other omega."""
    return lambda evidence: extreme(evidence.gain("omega 0.0", name, metric) for name in omegas(evidence)[1:])


def bins(above: str, below: str):
    """How many bins one group of images lies above another, without self-inclusion."""
    return lambda evidence: evidence.combined(lambda a, b: a - b, [(BINS, above), (BINS, below)])


def distance(evidence: Evidence) -> Effect | None:
    """The I-AUROC of Algorithm 2's distance, beyond guessing."""
    return evidence.combined(lambda x: x - 50, [(BINS, "distance")])


def hallucination(evidence: Evidence) -> Effect | None:
    """How much more a noised good image changes than a scaled one."""
    return evidence.combined(lambda a, b: a - b, [(NOISED_CHANGE, "change"), (SCALED_CHANGE, "change")])


def average(dataset: str, table: int, metric: str):
    """How far D3AD is from the paper's number, over the categories that were measured.

    Where the paper prints an average only, all its categories must be there.  PRO is `pro_200`, as the paper's is.
    """
    def measure(evidence: Evidence) -> Effect | None:
        printed = paper.reported(table)
        rows = printed[(printed["method"] == "D3AD") & (printed["dataset"] == dataset)]
        given = rows.set_index("category")[f"reported_{metric}"]
        runs = {key: values for key, values in evidence.numbers.get("D3AD", {}).items() if key[0] == dataset}
        if len(given) == 1:  # the average alone
            whole = len({key[1] for key in runs}) == paper.num_categories()[dataset]
            targets = {key: float(given["Average"]) for key in runs} if whole else {}
        else:
            targets = {key: float(given[key[1]]) for key in runs if key[1] in given}
        name = "pro_200" if metric == "pro" else metric
        return averaged({key: runs[key][name] - target for key, target in targets.items()})
    return measure


def categories_won(metric: str, reported_wins: int):
    """In how many of VisA's categories D3AD is the best of Table 1's methods, minus what the paper reports."""
    def measure(evidence: Evidence) -> Effect | None:
        names = [name for name in TABLE_1 if name in evidence.numbers]
        keys = [key for key in evidence.numbers.get("D3AD", {}) if key[0] == "VisA"
                and all(key in evidence.numbers[name] for name in names)]
        categories = {key[1] for key in keys}
        if len(names) < len(TABLE_1) or evidence.weakened & set(names) or len(categories) < 12:
            return None
        wins = 0
        for category in categories:
            lead = extreme(averaged({key: evidence.numbers["D3AD"][key][metric] - evidence.numbers[name][key][metric]
                                     for key in keys if key[1] == category}) for name in names)
            wins = wins + (lead.values > 0)
        return Effect(wins - float(reported_wins), tuple(keys))
    return measure


def times_slower(name: str):
    """D3AD's time for an image over a baseline's, minus 1."""
    def measure(evidence: Evidence) -> Effect | None:
        times = _times_as_long(evidence, name)
        return None if times is None else _beyond_once(evidence, times, name)
    return measure


def quicker_than_any(*names: str):
    """The time of the quickest of these baselines for an image over D3AD's, minus 1."""
    def measure(evidence: Evidence) -> Effect | None:
        times = [found for name in names if (found := _times_as_long(evidence, name)) is not None]
        return _beyond_once(evidence, np.min([1 / each for each in times], 0), names[0]) if times else None
    return measure


def _times_as_long(evidence: Evidence, name: str) -> np.ndarray | None:
    """D3AD's time for an image over a baseline's, (R,) of R rounds; None where its networks aren't its paper's, or a
    diffusion model on pixels, whose steps in a short training are fewer, wasn't trained as its paper asks.
    """
    unusable = evidence.weakened if name in PIXELS else evidence.narrowed
    if evidence.speed is None or name not in set(evidence.speed["method"]) - unusable:
        return None
    seconds = evidence.speed.pivot(index="round", columns="method", values="seconds")
    return (seconds["D3AD"] / seconds[name]).to_numpy()


def _beyond_once(evidence: Evidence, times: np.ndarray, name: str) -> Effect:
    return replace(over_rounds(times, name).map(lambda ratio: ratio - 1), note=evidence.timed)


# --- the claims

def _table5() -> list[Claim]:
    rows = []
    for metric, name in TITLES.items():
        points = f"points of {name}"
        both, scaled, adapted, none = "DS + DA", "DS", "DA", "no DS, no DA"
        titles = {"i_auroc": "detects better", "p_auroc": "has a better P-AUROC", "pro": "localises better"}
        for title, first, second in (
                (f"an only scaled input {titles[metric]} than a noised one", both, adapted),
                (f"without domain adaptation, too, scaling helps in {name}", scaled, none),
                (f"domain adaptation helps a scaled input in {name}", both, scaled),
                (f"domain adaptation helps a noised input in {name}", adapted, none)):
            text, effect = _pair(5, first, second, metric)
            where = "Table 5, A.2.1" if (first, second) == (both, adapted) else "Table 5"
            rows.append(Claim(title, where, text, points, gain(first, second, metric), paper_effect=effect))
        effect = round(reported(5, scaled, metric) - reported(5, adapted, metric), 2)
        rows.append(Claim(f"downscaling helps more than domain adaptation in {name}", "Table 5",
                          f"{effect} points more", points, more_by_scaling(metric), paper_effect=effect))
    least = min(round(reported(5, "DS + DA", m) - reported(5, other, m), 2) for m in TITLES
                for other in ("DS", "DA", "no DS, no DA"))
    return [*rows, Claim("both together are best", "Table 5", "in all three metrics",
                         "points, metric with the least lead", least_of_four, paper_effect=least)]


def _omega() -> list[Claim]:
    claims = []
    for metric, name in TITLES.items():  # Table 5 has both ends of Figure 14's curves
        text, effect = _pair(5, "DS + DA", "DA", metric)
        text = f"declining, {text.replace('against', 'to')}"
        claims.append(Claim(f"{name} falls as omega rises", "Figure 14, Table 5, A.2.1", text,
                            f"points of {name} lost from 0 to 1", falls_with_omega(metric), paper_effect=effect,
                            margin_reason="0: any decline counts"))
    return [*claims, Claim("omega = 0 is best", "Figure 14, A.2.1", "best performance at omega 0",
                           "points of PRO over the best other omega", best_without_noise("pro"))]


def _steps() -> list[Claim]:
    rows = []
    for metric, second in (("p_auroc", "100% (80)"), ("i_auroc", "100% (80)")):
        text, effect = _pair(4, "DIC", second, metric)
        rows.append(Claim(f"the dynamic step beats fixed steps in {TITLES[metric]}", "Table 4", text,
                          f"points of {TITLES[metric]} over the fixed step that is best on validation data",
                          over_best_fixed(metric), paper_effect=effect))
    text, effect = _pair(4, "DIC", "25% (20)", "pro")
    return [*rows,
            Claim("in PRO the dynamic step is close to the fixed step 20", "Table 4", text, "points of PRO",
                  gain("D3AD", "25% (20)", "pro"), paper_effect=effect, margin=effect - paper.ROUNDING,
                  margin_reason="what the paper itself falls behind, and its rounding"),
            Claim("the dynamic step finds large anomalies better than the fixed step 80", "Section 5, Figure 6", "",
                  "points of PRO, large regions", gain("D3AD", "100% (80)", "pro_large")),
            Claim("the dynamic step finds small anomalies better than the fixed step 80", "Section 5, Table 4",
                  "without compromising across scales", "points of PRO, small regions",
                  gain("D3AD", "100% (80)", "pro_small")),
            Claim("test images lie in higher bins than training images", "Figures 5, 16", "a shift to larger values",
                  "bins, no image its own neighbour", bins("test", "train"), margin_reason="0: any shift counts"),
            Claim("anomalous test images lie in higher bins than good ones", "implied by Section 4.1, Figure 2", "",
                  "bins, no image its own neighbour", bins("anomalous", "good"), margin_reason="0: any shift counts"),
            Claim("the distance of Algorithm 2 separates anomalous from good images", "Section 4.1",
                  "an initial estimate", "points of I-AUROC beyond 50", distance, margin_reason="0: 50 % is guessing")]


def _spread_of_categories() -> float:
    single = paper.reported(1).query("method == 'D3AD' and category != 'Average'")
    return round(float(single["reported_pro"].std()), 1)


def _others() -> list[Claim]:
    return [
        Claim("anomalies are localised regardless of their scale", "Abstract, Figures 1, 7, 10", "",
              "points of PRO, worst minus best size", evenness, margin=-_spread_of_categories(),
              margin_reason="the standard deviation of the paper's own PRO over VisA's categories"),
        Claim("at high levels noise changes good images more (hallucination)", "Figure 15, A.2.1", "",
              "% of the grey scale more", hallucination),
        Claim("guidance helps localisation", "Sections 3, A.1", "eta 7 to 10 in most categories",
              "points of PRO, eta 7 over eta 0", gain("eta = 7", "eta = 0", "pro")),
        Claim("guidance helps detection", "Sections 3, A.1", "eta 7 to 10 in most categories",
              "points of I-AUROC, eta 7 over eta 0", gain("eta = 7", "eta = 0", "i_auroc")),
        Claim("a latent model beats one on pixels", "Section 1, contribution 3", "precise anomaly heatmaps",
              f"points of PRO, over the better of {' and '.join(PIXELS)}", ahead_of_any("pro", *PIXELS),
              needs=f"{' or '.join(PIXELS)}, of its paper's width and trained as it asks"),
        Claim("a latent model takes less computing than one on pixels", "Section 1", "less computing resources",
              f"the time of the quicker of {' and '.join(PIXELS)} over D3AD's, minus 1; rounds of timing are resampled",
              quicker_than_any(*PIXELS), margin_reason="0: equally fast",
              needs=f"{' or '.join(PIXELS)}, of its paper's width and trained as it asks")]


def _averages() -> list[Claim]:
    rows = []
    for dataset, table, metrics in (("VisA", 1, ("i_auroc", "pro")), ("VisA", 7, ("p_auroc",)),
                                    ("BTAD", 3, ("i_auroc", "pro")), ("MVTec AD", 6, ("i_auroc", "p_auroc", "pro"))):
        for metric in metrics:
            name = TITLES[metric] + (" (200 thresholds)" if metric == "pro" else "")
            rows.append(Claim(f"{TITLES[metric]} on {dataset}", f"Table {table}", str(reported(table, "D3AD", metric)),
                              f"points of {name} from the paper's, same categories", average(dataset, table, metric),
                              dataset, 0.0, -paper.ROUNDING, ROUNDING))
    return rows


def _baselines() -> list[Claim]:
    leads = [("better localisation than PatchCore on VisA", 1, ("PatchCore",), "pro", "VisA"),
             ("the I-AUROC of RD4AD on VisA is reached", 1, ("RD4AD",), "i_auroc", "VisA"),
             ("PRO on BTAD is ahead of every other method", 3, TABLE_3, "pro", "BTAD"),
             ("P-AUROC on MVTec AD is ahead of DRAEM", 6, ("DRAEM",), "p_auroc", "MVTec AD"),
             ("PRO on MVTec AD is ahead of DRAEM", 6, ("DRAEM",), "pro", "MVTec AD"),
             ("P-AUROC on VisA is ahead of DDAD", 2, ("DDAD",), "p_auroc", "VisA")]
    rows = [
        Claim("better localisation than each baseline", "Tables 1-3, Figures 8, 9",
              "2.9 points of PRO ahead of PatchCore on VisA", "points of PRO, over the best baseline",
              ahead_of_all("pro"), paper_effect=_lead(1, "pro", TABLE_1)),
        Claim("better localisation than other diffusion models", "Table 2", "94.1 against 93.2",
              "points of PRO, over the best of the three", ahead_of("pro", "AnoDDPM", "DiffusionAD", "DDAD"),
              paper_effect=_lead(2, "pro", ("AnoDDPM", "DiffusionAD", "DDAD")), needs=NEEDS_DDAD),
        Claim("better localisation than DRAEM", "Tables 1, 6, Figures 8, 9",
              "94.1 against 73.1 on VisA, 93.3 against 93.0 on MVTec AD", "points of PRO", ahead_of("pro", "DRAEM"),
              paper_effect=_lead(1, "pro", ("DRAEM",))),
        Claim("PatchCore has the better P-AUROC", "Table 7", "98.8 against 97.9", "points of P-AUROC",
              behind("p_auroc", "PatchCore"), paper_effect=-_lead(7, "p_auroc", ("PatchCore",))),
        Claim("PaDiM has the better P-AUROC", "Table 7", "98.1 against 97.9", "points of P-AUROC",
              behind("p_auroc", "PaDiM"), paper_effect=-_lead(7, "p_auroc", ("PaDiM",))),
        Claim("I-AUROC on MVTec AD trails DRAEM's", "Table 6, A.2.2", "97.2 against 98.0", "points of I-AUROC behind",
              behind("i_auroc", "DRAEM", "MVTec AD"), "MVTec AD", -_lead(6, "i_auroc", ("DRAEM",)))]
    for title, table, names, metric, dataset in leads:
        lead = _lead(table, metric, names)
        equal = dict(margin=-2 * paper.ROUNDING, margin_reason="minus 0.1: two rounded numbers that are equal in print")
        rows.append(Claim(title, f"Table {table}", f"{lead:+.1f} points", f"points of {TITLES[metric]}",
                          ahead_of(metric, *names, dataset=dataset), dataset, lead, **(equal if lead == 0 else {}),
                          needs=NEEDS_DDAD if "DDAD" in names else ""))
    for metric, wins in (("pro", 8), ("i_auroc", 3)):
        rows.append(Claim(f"best {TITLES[metric]} in {wins} of VisA's 12 categories", "Section 5, Table 1",
                          f"{wins} of 12", f"categories won, beyond {wins}", categories_won(metric, wins), "VisA", 0.0,
                          -0.5, "minus half a category: as many as reported, or more"))
    return rows


def _lead(table: int, metric: str, names: tuple[str, ...]) -> float:
    """How far the paper's D3AD is ahead of the best of these in one of its tables."""
    return round(reported(table, "D3AD", metric) - max(reported(table, name, metric) for name in names
                                                       if not pd.isna(reported(table, name, metric))), 2)


def _speed() -> list[Claim]:
    rows = []
    for name in ("RD4AD", "PatchCore", "DRAEM"):
        own, other = reported(8, "D3AD", "seconds"), reported(8, name, "seconds")
        rows.append(Claim(f"slower than {name}", "Table 8", f"{own} s an image against {other} s",
                          "D3AD's time over the other's, minus 1; rounds of timing are resampled",
                          times_slower(name), paper_effect=own / other - 1, margin_reason="0: equally fast",
                          needs=f"{name}, of its paper's width"))
    return rows


CLAIMS: tuple[Claim, ...] = (*_table5(), *_omega(), *_steps(), *_others(), *_averages(), *_baselines(), *_speed())


def ledger(evidence: Evidence) -> pd.DataFrame:
    """Every claim of the paper with its effect, interval and verdict (`verdicts.judged`)."""
    return judged(CLAIMS, evidence)
