"""The claims of the paper that a run can test: what was reported, what was measured, and a verdict by a rule.

The rule, for all claims alike: what the claim says is measured as one number per seed that it wants above 0 (or above a
stated limit).  "reproduced": over at least three seeds, the mean exceeds the limit by more than the seeds' standard
deviation.  "not reproduced": it doesn't.  "not tested": fewer seeds, or something that this run doesn't hold.
"""
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from d3ad.study import paper

MIN_SEEDS = 3
FIXED_20, FIXED_80 = "25% (20)", "100% (80)"  # Table 4's names
VERDICTS = ("reproduced", "not reproduced", "not tested")


@dataclass
class Evidence:
    """What the claims are tested on.

    seeds: of `ablations.seeds`.  omega: of `ablations.omega_sweep`, the runs of several seeds.  change: of
    `ablations.changes_of_good_images`.  bins: of `ablations.mean_bins`.
    averages: (dataset, metric) to D3AD's mean over all categories per seed, for the paper's own datasets.
    baselines: of `baselines.compared` on the runs of several seeds.  speed: of `baselines.speed`, whose rounds stand
    for seeds.
    """

    seeds: pd.DataFrame
    omega: pd.DataFrame
    change: pd.DataFrame
    bins: pd.DataFrame
    averages: dict[tuple[str, str], pd.Series] = field(default_factory=dict)
    baselines: pd.DataFrame | None = None
    speed: pd.DataFrame | None = None

    def of(self, method: str, metric: str) -> pd.Series:
        """One value per seed: the mean over categories."""
        rows = self.seeds[self.seeds["method"] == method]
        return rows.groupby("seed")[f"measured_{metric}"].mean()

    def gain(self, better: str, worse: str, metric: str) -> pd.Series:
        """How far one method is ahead of another, in points, per seed."""
        return self.of(better, metric) - self.of(worse, metric)


@dataclass(frozen=True)
class Claim:
    """`measure` gives one number per seed, or None where the evidence is missing; the claim wants it above `limit`."""

    claim: str
    where: str
    reported: str
    quantity: str
    measure: Callable[[Evidence], pd.Series | None]
    limit: float = 0.0


def _gain(better: str, worse: str, metric: str) -> Callable[[Evidence], pd.Series]:
    return lambda evidence: evidence.gain(better, worse, metric)


def _falls_with_omega(metric: str) -> Callable[[Evidence], pd.Series]:
    def measure(evidence: Evidence) -> pd.Series:
        seeds_of_row = evidence.omega.groupby(["category", "omega"])["seed"].transform("nunique")
        of_all_seeds = seeds_of_row == evidence.omega["seed"].nunique()
        curves = evidence.omega[of_all_seeds].groupby(["seed", "omega"])[f"measured_{metric}"].mean().unstack("omega")
        return -curves.T.rank().corrwith(pd.Series(curves.columns, index=curves.columns).rank())
    return measure


def _over_fixed(metric: str) -> Callable[[Evidence], pd.Series]:
    return lambda evidence: pd.concat([evidence.gain("D3AD", fixed, metric) for fixed in (FIXED_20, FIXED_80)],
                                      axis=1).min(axis=1)


def _least_of_four(evidence: Evidence) -> pd.Series:
    """How far DS + DA is ahead of the best of the three others, in the metric where it is least ahead."""
    gains = [evidence.gain("DS + DA", other, metric) for metric in ("i_auroc", "p_auroc", "pro")
             for other in ("DS", "DA", "no DS, no DA")]
    return pd.concat(gains, axis=1).min(axis=1)


def _evenness(evidence: Evidence) -> pd.Series:
    """Minus the distance between the best and the worst size class, in points of PRO."""
    sizes = pd.concat([evidence.of("D3AD", f"pro_{size}") for size in ("small", "medium", "large")], axis=1)
    return sizes.min(axis=1) - sizes.max(axis=1)


def _bins(above: str, below: str) -> Callable[[Evidence], pd.Series]:
    def measure(evidence: Evidence) -> pd.Series:
        bins = evidence.bins.groupby("seed")
        return bins[f"bin_{above}"].mean() - bins[f"bin_{below}"].mean()
    return measure


def _hallucination(evidence: Evidence) -> pd.Series:
    per_seed = evidence.change.groupby(["seed", "method"])["change"].mean().unstack("method")
    return per_seed["noised"] - per_seed["scaled"]


def _average(dataset: str, metric: str, reported: float) -> Callable[[Evidence], pd.Series | None]:
    def measure(evidence: Evidence) -> pd.Series | None:
        averages = evidence.averages.get((dataset, metric))
        return None if averages is None else averages - reported
    return measure


def _ahead_of(metric: str, *names: str) -> Callable[[Evidence], pd.Series | None]:
    """How far D3AD is ahead of the best of these baselines (of all, where none is named), in points, per seed.

    None where the lead proves nothing: over baselines trained on fewer images than their papers ask for, or,
    where none is named, over some only of those that the paper's Table 1 has.
    """
    def measure(evidence: Evidence) -> pd.Series | None:
        if evidence.baselines is None:
            return None
        single = evidence.baselines[evidence.baselines["category"] != "Average"]
        methods = single.groupby(["method", "seed"])[f"measured_{metric}"].mean().unstack("method")
        baselines = [name for name in methods if not name.startswith("D3AD")]
        if not baselines or not set(names) <= set(baselines):
            return None
        chosen = list(names) or baselines
        lead = methods["D3AD"] - methods[chosen].max(axis=1)
        budgets = single[single["method"].isin(chosen)]
        undertrained = (budgets["images"] < budgets["images_asked"]).any()
        incomplete = not names and not set(paper.reported(1)["method"]) <= {"D3AD", *baselines}
        return None if (undertrained or incomplete) and lead.mean() > 0 else lead
    return measure


def _negative(values: pd.Series | None) -> pd.Series | None:
    return None if values is None else -values


def _slower_than(*names: str) -> Callable[[Evidence], pd.Series | None]:
    """How many times longer D3AD takes for an image than the slowest of these, per round."""
    def measure(evidence: Evidence) -> pd.Series | None:
        if evidence.speed is None or not set(names) <= set(evidence.speed["method"]):
            return None
        seconds = evidence.speed.pivot(index="round", columns="method", values="seconds")
        return seconds["D3AD"] / seconds[list(names)].max(axis=1)
    return measure


CLAIMS = (
    Claim("an only scaled input detects better than a noised one", "Table 5, A.2.1", "96.0 against 90.8",
          "points of I-AUROC", _gain("D3AD", "D3AD, fully noised", "i_auroc")),
    Claim("an only scaled input localises better than a noised one", "Table 5, A.2.1", "94.1 against 83.8",
          "points of PRO", _gain("D3AD", "D3AD, fully noised", "pro")),
    Claim("I-AUROC falls as omega rises", "Figure 14, A.2.1", "declining",
          "rank correlation, sign reversed, 0.8 needed beyond the spread", _falls_with_omega("i_auroc"), 0.8),
    Claim("PRO falls as omega rises", "Figure 14, A.2.1", "declining",
          "rank correlation, sign reversed, 0.8 needed beyond the spread", _falls_with_omega("pro"), 0.8),
    Claim("test images lie in higher bins than training images", "Figures 5, 16", "a shift to larger values", "bins",
          _bins("test", "train")),
    Claim("anomalous test images lie in higher bins than good ones", "implied by Section 4.1, Figure 2", "", "bins",
          _bins("anomalous", "good")),
    Claim("the dynamic step beats fixed steps in P-AUROC", "Table 4", "97.9 against 96.7",
          "points of P-AUROC, over the better of 20 and 80", _over_fixed("p_auroc")),
    Claim("the dynamic step beats fixed steps in I-AUROC", "Table 4", "96.0 against 95.4",
          "points of I-AUROC, over the better of 20 and 80", _over_fixed("i_auroc")),
    Claim("in PRO the dynamic step is close to 20 fixed steps", "Table 4", "94.1 against 94.3",
          "points of PRO, at least -0.5", _gain("D3AD", FIXED_20, "pro"), -0.5),
    Claim("the dynamic step finds large anomalies better than 80 fixed steps", "Section 5, Figure 6", "",
          "points of PRO, large regions, at least 0.5", _gain("D3AD", FIXED_80, "pro_large"), 0.5),
    Claim("domain adaptation helps a scaled input", "Table 5", "94.1 against 92.0", "points of PRO",
          _gain("DS + DA", "DS", "pro")),
    Claim("domain adaptation helps a noised input", "Table 5", "83.8 against 82.0", "points of PRO",
          _gain("DA", "no DS, no DA", "pro")),
    Claim("downscaling helps more than domain adaptation", "Table 5", "10.0 against 1.8", "points of PRO",
          lambda e: e.gain("DS", "no DS, no DA", "pro") - e.gain("DA", "no DS, no DA", "pro")),
    Claim("both together are best", "Table 5", "in all three metrics", "points, metric with the least lead",
          _least_of_four),
    Claim("anomalies are localised regardless of their scale", "Abstract, Figures 1, 7, 10", "",
          "points of PRO, worst minus best size, at least -5", _evenness, -5.0),
    Claim("at high levels noise changes good images more (hallucination)", "Figure 15, A.2.1", "",
          "% of the grey scale more", _hallucination),
    Claim("I-AUROC on VisA", "Table 1", "96.0", "points from the paper, at least -1", _average("VisA", "i_auroc", 96.0),
          -1.0),
    Claim("PRO on VisA", "Table 1", "94.1", "points from the paper, at least -1", _average("VisA", "pro", 94.1), -1.0),
    Claim("P-AUROC on VisA", "Table 7", "97.9", "points from the paper, at least -1", _average("VisA", "p_auroc", 97.9),
          -1.0),
    Claim("I-AUROC on BTAD", "Table 3", "95.2", "points from the paper, at least -1", _average("BTAD", "i_auroc", 95.2),
          -1.0),
    Claim("PRO on BTAD", "Table 3", "83.2", "points from the paper, at least -1", _average("BTAD", "pro", 83.2), -1.0),
    Claim("I-AUROC on MVTec AD", "Table 6", "97.2", "points from the paper, at least -1",
          _average("MVTec AD", "i_auroc", 97.2), -1.0),
    Claim("PRO on MVTec AD", "Table 6", "93.3", "points from the paper, at least -1", _average("MVTec AD", "pro", 93.3),
          -1.0),
    Claim("better localisation than each baseline", "Tables 1-3, Figures 8, 9",
          "2.9 points of PRO ahead of PatchCore on VisA", "points of PRO, over the best baseline", _ahead_of("pro")),
    Claim("better localisation than other diffusion models", "Table 2", "94.1 against 93.2",
          "points of PRO, over the best of the three", _ahead_of("pro", "AnoDDPM", "DiffusionAD", "DDAD")),
    Claim("better localisation than DRAEM", "Tables 1, 6, Figures 8, 9",
          "94.1 against 73.1 on VisA, 93.3 against 93.0 on MVTec AD", "points of PRO", _ahead_of("pro", "DRAEM")),
    Claim("PatchCore has the better P-AUROC", "Table 7", "98.8 against 97.9", "points of P-AUROC",
          lambda e: _negative(_ahead_of("p_auroc", "PatchCore")(e))),
    Claim("slower than RD4AD and PatchCore", "Table 8", "0.34 s an image against 0.21 s",
          "times as long as the slower of them, at least 1; rounds for seeds", _slower_than("RD4AD", "PatchCore"), 1.0),
)


def mentions(where: str, artifact: str) -> bool:
    """Whether a claim's `where` names an artifact: "Figures 5, 16" names "fig05", "Tables 1-3" names "table2"."""
    kind, number = ("Figure", artifact[3:]) if artifact.startswith("fig") else ("Table", artifact[5:])
    listed: set[int] = set()
    for numbers in re.findall(rf"{kind}s? ((?:\d+(?:-\d+)?(?:, )?)+)", where):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", numbers):
            listed |= set(range(int(first), int(last or first) + 1))
    return int(number) in listed


def verdict(values: pd.Series | None, limit: float) -> str:
    """The rule at the top of this file, for one number per seed."""
    if values is None or len(values.dropna()) < MIN_SEEDS:
        return "not tested"
    return "reproduced" if values.mean() - limit > values.std() else "not reproduced"


def ledger(evidence: Evidence) -> pd.DataFrame:
    """Every claim with where it stands, what was reported, what was measured (mean, spread, seeds), and the verdict."""
    rows = []
    for claim in CLAIMS:
        values = claim.measure(evidence)
        some = values is not None and len(values.dropna()) > 0
        rows.append(dict(
            claim=claim.claim, where=claim.where, reported=claim.reported, quantity=claim.quantity,
            measured=values.mean() if some else None, spread=values.std() if some else None,
            seeds=len(values.dropna()) if some else 0, limit=claim.limit, verdict=verdict(values, claim.limit)))
    return pd.DataFrame(rows)
