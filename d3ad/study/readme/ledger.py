"""The ledger of claims: verdicts, their rule, and how many there are of each."""
import pandas as pd

from d3ad.study import verdicts
from d3ad.study.readme import measured
from d3ad.study.readme.cells import markdown_table, mean_and_spread

HEADLINES = (  # the claims that README.md shows; docs/claims.md has all
    "an only scaled input detects better than a noised one", "an only scaled input localises better than a noised one",
    "PRO falls as omega rises", "at high levels noise changes good images more (hallucination)",
    "anomalous test images lie in higher bins than good ones", "the dynamic step beats fixed steps in P-AUROC",
    "the dynamic step beats fixed steps in I-AUROC", "domain adaptation helps a scaled input in PRO",
    "downscaling helps more than domain adaptation in PRO", "guidance helps localisation",
    "anomalies are localised regardless of their scale", "better localisation than each baseline",
)


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
    return {profile: frame for profile, frame in measured.frames("claims").items() if "margin_reason" in frame}


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
