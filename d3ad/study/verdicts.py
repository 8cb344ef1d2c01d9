"""What became of a claim: the effect that a run measures, its interval, and a verdict by one rule.

The rule, for all claims alike: each claim is measured as one effect, which should exceed a margin, with a 95 % interval
from a bootstrap.  "holds": the whole interval lies above the margin.  "contradicted": the whole interval lies below it.
"inconclusive": the margin lies inside the interval, or the difference does not survive Holm's correction for testing so
many claims at once.  "not tested": this run lacks the data or the methods that the claim needs.  "reproduced" takes the
place of "holds" only where the claim is about VisA, BTAD or MVTec AD and was measured on images of that dataset alone.

The bootstrap resamples images within each category (for magnetic tiles: tiles with all their exposures), the same for
all methods compared; then the seeds of a category.  Categories are not resampled, and each has the same weight.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from d3ad.study.evidence import Effect, Evidence

VERDICTS = ("reproduced", "holds", "contradicted", "inconclusive", "not tested")
LEVEL = 0.05
COLUMNS = ("claim", "where", "reported", "quantity", "measured", "effect", "low", "high", "margin", "margin_reason",
           "units", "power", "verdict", "setting")
REAL = ("VisA", "BTAD", "MVTec AD")


@dataclass(frozen=True)
class Claim:
    """`measure` gives the effect, or None where the evidence is missing; it should exceed `margin`.

    about: the paper's dataset that it was made on.  paper_effect: the effect by the paper's own numbers, where it
    prints them; `power` says whether this run could have detected it.  needs: what a run must have to test it, where
    that isn't plain.
    """

    claim: str
    where: str
    reported: str
    quantity: str
    measure: Callable[[Evidence], Effect | None]
    about: str = "VisA"
    paper_effect: float | None = None
    margin: float = 0.0
    margin_reason: str = "0: any lead counts"
    needs: str = ""


def interval(effect: Effect) -> tuple[float, float]:
    """The 95 % interval: the middle of the draws, and the estimate in any case."""
    low, high = np.quantile(effect.values[1:], (LEVEL / 2, 1 - LEVEL / 2))
    return min(float(low), float(effect.values[0])), max(float(high), float(effect.values[0]))


def p_value(effect: Effect, margin: float) -> float:
    """Two-sided, from the draws' standard deviation: how surprising the effect would be if the margin were true."""
    distance, spread = abs(float(effect.values[0]) - margin), float(effect.values[1:].std())
    if spread == 0:
        return 1.0 if distance == 0 else 0.0
    return 2 * float(norm.sf(distance / spread))


def holm(p_values: list[float]) -> list[bool]:
    """Which of several p-values are significant at 5 % by Holm's step-down correction."""
    order = np.argsort(p_values, kind="stable")
    kept = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > LEVEL / (len(p_values) - rank):
            break
        kept[i] = True
    return kept


def power(effect: Effect, paper_effect: float | None, margin: float) -> float:
    """The chance that the interval would have excluded the margin, on the right side, if the paper's effect were true;
    NaN where the paper gives none.  Before Holm's correction, which lowers it.
    """
    spread = float(effect.values[1:].std())
    if paper_effect is None or spread == 0:
        return float("nan")
    return float(norm.sf(norm.isf(LEVEL / 2) - abs(paper_effect - margin) / spread))


def verdict(low: float, high: float, margin: float, significant: bool = True) -> str:
    """The rule at the top of this file, for a 95 % interval; significant: after Holm's correction."""
    if not significant:
        return "inconclusive"
    return "holds" if low > margin else "contradicted" if high < margin else "inconclusive"


def judged(claims: tuple[Claim, ...], evidence: Evidence) -> pd.DataFrame:
    """The ledger: a row per claim, columns `COLUMNS`; what was not tested has no numbers."""
    effects = [claim.measure(evidence) for claim in claims]
    tested = [i for i, effect in enumerate(effects) if effect is not None]
    significant = dict(zip(tested, holm([p_value(effects[i], claims[i].margin) for i in tested])))
    rows = []
    for i, (claim, effect) in enumerate(zip(claims, effects)):
        row = dict.fromkeys(COLUMNS) | dict(
            claim=claim.claim, where=claim.where, reported=claim.reported, quantity=claim.quantity, margin=claim.margin,
            margin_reason=claim.margin_reason, verdict="not tested", setting=claim.needs and f"needs {claim.needs}")
        if effect is not None:
            low, high = interval(effect)
            found = verdict(low, high, claim.margin, significant[i])
            own = own_dataset(claim, effect)
            row |= dict(measured=float(effect.values[0]), effect=float(effect.values[0]), low=low, high=high,
                        units=evidence.count(effect), power=power(effect, claim.paper_effect, claim.margin),
                        verdict="reproduced" if own and found == "holds" else found,
                        setting=setting(evidence, effect, own))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(("measured", "effect", "low", "high", "power"), float))


def own_dataset(claim: Claim, effect: Effect) -> bool:
    """Whether a claim was measured on the images that the paper makes it about, and on no others."""
    return claim.about in REAL and {dataset for dataset, _, _ in effect.keys} == {claim.about}


def setting(evidence: Evidence, effect: Effect, own: bool) -> str:
    """Where a verdict holds, in words: the data first, what the run chose, then what the detector was made of."""
    categories: dict[str, set[str]] = {}
    for dataset, category, _ in effect.keys:
        categories.setdefault(dataset, set()).add(category)
    data = ", ".join(f"{dataset} ({', '.join(sorted(names))})" if dataset in REAL else dataset
                     for dataset, names in categories.items())
    seeds = sorted({seed for *_, seed in effect.keys})
    parts = [data, f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "", effect.note,
             evidence.settings]
    return ("on " if own else "in this setting: ") + "; ".join(filter(None, parts))
