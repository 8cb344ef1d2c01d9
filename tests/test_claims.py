"""The ledger: the rule by hand, and each kind of claim on made-up evidence whose answer is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from d3ad.study import claims, provenance

METHODS = ("D3AD", "D3AD, fully noised", "DS + DA", "DS", "DA", "no DS, no DA", "25% (20)", "100% (80)")


def evidence(lead: float, num_seeds: int = 3, slope: float = -10.0) -> claims.Evidence:
    """D3AD ahead of all others by `lead` points in every metric; metrics change by `slope` from omega 0 to 1."""
    metrics = ("i_auroc", "p_auroc", "pro", "pro_small", "pro_medium", "pro_large")
    jitter = np.linspace(-0.2, 0.2, num_seeds)
    seeds = pd.DataFrame(
        [
            dict(
                method=m,
                seed=s,
                category="x",
                **{f"measured_{k}": 90 + jitter[s] + lead * (m in ("D3AD", "DS + DA")) for k in metrics},
            )
            for m in METHODS
            for s in range(num_seeds)
        ]
    )
    omega = pd.DataFrame(
        [
            dict(category="x", seed=s, omega=o, measured_i_auroc=90 + slope * o, measured_pro=80 + slope * o)
            for s in range(num_seeds)
            for o in (0, 0.5, 1)
        ]
    )
    change = pd.DataFrame(
        [
            dict(seed=s, method=m, change=v + jitter[s])
            for s in range(num_seeds)
            for m, v in (("scaled", 2.0), ("noised", 3.0))
        ]
    )
    bins = pd.DataFrame(
        [dict(seed=s, bin_train=3.0, bin_good=4.0, bin_anomalous=6.0, bin_test=5.0) for s in range(num_seeds)]
    )
    return claims.Evidence(seeds, omega, change, bins)


@pytest.mark.parametrize(
    "values, limit, expected",
    [
        ([1.0, 1.2, 0.8], 0.0, "reproduced"),  # mean 1.0, deviation 0.2
        ([1.0, 1.2, 0.8], 0.79, "reproduced"),  # 0.21 above the limit
        ([1.0, 1.2, 0.8], 0.81, "not reproduced"),  # 0.19 above it
        ([1.0, -1.0, 0.5], 0.0, "not reproduced"),
        ([-1.0, -1.0, -1.0], 0.0, "not reproduced"),
        ([0.0, 0.0, 0.0], 0.0, "not reproduced"),  # no lead at all
        ([5.0, 5.0], 0.0, "not tested"),
        ([5.0, 5.0, float("nan")], 0.0, "not tested"),
        (None, 0.0, "not tested"),
    ],
)
def test_the_rule_by_hand(values, limit, expected):
    assert claims.verdict(None if values is None else pd.Series(values), limit) == expected


def verdicts(found: claims.Evidence) -> dict[str, str]:
    return claims.ledger(found).set_index("claim")["verdict"].to_dict()


def test_a_clear_lead_is_reproduced_and_a_deficit_is_not():
    ahead, behind = verdicts(evidence(+3.0)), verdicts(evidence(-3.0))
    for claim in (
        "an only scaled input detects better than a noised one",
        "domain adaptation helps a scaled input",
        "both together are best",
        "the dynamic step beats fixed steps in P-AUROC",
    ):
        assert ahead[claim] == "reproduced" and behind[claim] == "not reproduced", claim


def test_omega_hallucination_bins_and_sizes():
    found = claims.ledger(evidence(1.0)).set_index("claim")
    assert found.loc["PRO falls as omega rises", "measured"] == pytest.approx(1.0)
    assert verdicts(evidence(1.0, slope=+5))["PRO falls as omega rises"] == "not reproduced"
    assert found.loc["at high levels noise changes good images more (hallucination)", "measured"] == pytest.approx(1.0)
    assert found.loc["test images lie in higher bins than training images", "measured"] == pytest.approx(2.0)
    assert found.loc["anomalies are localised regardless of their scale", "measured"] == pytest.approx(0.0)


def test_too_few_seeds_and_missing_datasets_are_not_tested():
    assert set(verdicts(evidence(3.0, num_seeds=2)).values()) == {"not tested"}
    found = evidence(3.0)
    assert verdicts(found)["PRO on VisA"] == "not tested"
    found.averages = {("VisA", "pro"): pd.Series([94.0, 93.9, 94.2])}
    assert verdicts(found)["PRO on VisA"] == "reproduced"
    found.averages = {("VisA", "pro"): pd.Series([90.0, 89.9, 90.2])}
    assert verdicts(found)["PRO on VisA"] == "not reproduced"


def test_every_claim_says_where_it_stands():
    assert len(claims.CLAIMS) >= 10 and len({claim.claim for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    assert all(claim.where and claim.quantity for claim in claims.CLAIMS)


@pytest.mark.parametrize(
    "where, artifact, expected",
    [
        ("Figures 5, 16", "fig05", True),
        ("Figures 5, 16", "fig16", True),
        ("Figures 5, 16", "fig01", False),
        ("Table 5, A.2.1", "table5", True),
        ("Table 5, A.2.1", "table2", False),
        ("Table 5", "fig05", False),
        ("Tables 1-3, Figures 8, 9", "table2", True),
        ("Tables 1-3, Figures 8, 9", "fig09", True),
        ("Figure 15, A.2.1", "fig02", False),
        ("Abstract", "table1", False),
    ],
)
def test_the_artifacts_that_a_claim_rests_on(where, artifact, expected):
    assert claims.mentions(where, artifact) is expected


def against_baselines(d3ad: float, seconds: float, images: int = 9) -> claims.Evidence:
    """D3AD at `d3ad` percent among baselines at 60 to 90, `images` of 9 images; PatchCore takes 1 s, it `seconds`."""
    levels = {
        "D3AD": d3ad,
        "D3AD, fully noised": 99.0,
        "D3AD, maps not standardised": 98.0,
        "PatchCore": 90.0,
        "SPADE": 60.0,
        "PaDiM": 60.0,
        "RD4AD": 60.0,
        "DRAEM": 80.0,
        "AnoDDPM": 70.0,
        "DiffusionAD": 75.0,
        "DDAD": 85.0,
    }
    rows = [
        dict(category="x", seed=s, method=m, measured_pro=v + 0.1 * s, measured_p_auroc=v, images=images,
             images_asked=9)
        for m, v in levels.items()
        for s in range(3)
    ]
    times = {"D3AD": seconds, "RD4AD": 0.5, "PatchCore": 1.0, "DRAEM": 5.0}
    rounds = [dict(method=m, round=i, seconds=v) for m, v in times.items() for i in range(3)]
    found = evidence(1.0)
    return claims.Evidence(
        found.seeds, found.omega, found.change, found.bins, baselines=pd.DataFrame(rows), speed=pd.DataFrame(rounds)
    )


def test_claims_against_baselines():
    best, middling = against_baselines(95.0, 2.0), against_baselines(86.0, 0.9)
    assert claims.ledger(best).set_index("claim").loc[
        "better localisation than each baseline", "measured"
    ] == pytest.approx(5.0)  # noise is no baseline
    names = (
        "better localisation than each baseline",
        "better localisation than other diffusion models",
        "better localisation than DRAEM",
        "PatchCore has the better P-AUROC",
        "slower than RD4AD and PatchCore",
    )
    assert [verdicts(best)[name] for name in names] == ["reproduced"] * 3 + ["not reproduced", "reproduced"]
    assert [verdicts(middling)[name] for name in names] == ["not reproduced"] + ["reproduced"] * 3 + ["not reproduced"]
    assert {verdicts(evidence(1.0))[name] for name in names} == {"not tested"}
    short = verdicts(against_baselines(86.0, 2.0, images=3))  # a lead over them proves nothing, being behind them does
    assert [short[name] for name in names[:3]] == ["not reproduced", "not tested", "not tested"]


def only(evidence: claims.Evidence, *names: str) -> dict[str, str]:
    """The verdicts where a profile measures these baselines only."""
    keep = ("D3AD", *names)
    some = [frame[frame["method"].isin(keep)] for frame in (evidence.baselines, evidence.speed)]
    return verdicts(dataclasses.replace(evidence, baselines=some[0], speed=some[1]))


def test_a_lead_over_some_of_the_baselines_proves_nothing():
    claim, untrained = "better localisation than each baseline", ("SPADE", "PaDiM", "PatchCore")
    assert only(against_baselines(95.0, 2.0), *untrained)[claim] == "not tested"
    assert only(against_baselines(86.0, 2.0), *untrained)[claim] == "not reproduced"  # being behind one of them does
    for other in (
        claim,
        "better localisation than DRAEM",
        "PatchCore has the better P-AUROC",
        "slower than RD4AD and PatchCore",
    ):
        assert only(against_baselines(86.0, 2.0))[other] == "not tested"


NO = "does not hold here"


@pytest.mark.parametrize("holds, word", [(True, "holds here"), (False, NO), (np.bool_(False), NO)])
def test_a_finding_is_printed_and_stops_nothing(holds, word, capsys):
    provenance.finding("most defects are flagged", holds)
    assert capsys.readouterr().out == f"most defects are flagged: {word}\n"
