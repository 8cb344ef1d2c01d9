"""The ledger: the rule by hand, planted effects, and each kind of claim on made-up evidence whose answer is known."""
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from d3ad.infra.files import ROOT
from d3ad.study import claims, provenance, resampling, verdicts
from d3ad.study.evidence import (
    BINS,
    NOISED_CHANGE,
    SCALED_CHANGE,
    Effect,
    Evidence,
    draws_of,
    in_words,
    kept_draws,
    over_rounds,
    timing_in_words,
    undertrained,
)
from d3ad.study.workspace import open_workspace

METRICS = ("i_auroc", "p_auroc", "pro", "pro_200", "pro_small", "pro_medium", "pro_large")
KEYS = [("VisA-like", "board", seed) for seed in (3, 4, 5)] + [("BTAD-like", "washer", 3)]


def sure(value: float, spread: float = 0.1) -> np.ndarray:
    """An estimate with narrow draws around it."""
    return value + spread * np.concatenate([[0], np.random.default_rng(0).standard_normal(resampling.DRAWS)])


def evidence(lead: float = 3.0, slope: float = -10.0, keys=KEYS, **others) -> Evidence:
    """D3AD and DS + DA ahead of all others by `lead` points; metrics change by `slope` from omega 0 to 1."""
    values = {name: lead * (name in ("D3AD", "DS + DA")) for name in
              ("D3AD", "DS + DA", "DS", "DA", "no DS, no DA", "25% (20)", "100% (80)", "eta = 0", "eta = 7")}
    values |= {f"omega {omega}": slope * omega for omega in (0.0, 0.4, 1.0)}
    numbers = {name: {key: {m: sure(90 + value) for m in METRICS} for key in keys} for name, value in values.items()}
    numbers[BINS] = {key: dict(train=sure(3.0), test=sure(5.0), good=sure(4.0), anomalous=sure(6.0), distance=sure(80))
                     for key in keys}
    for name, change in ((SCALED_CHANGE, 2.0), (NOISED_CHANGE, 3.0)):
        numbers[name] = {key: {"change": sure(change)} for key in keys}
    units = {key: [f"{key}{i}" for i in range(20)] for key in keys}
    return Evidence(numbers, units, fixed=dict.fromkeys(METRICS, "100% (80)"), settings="64 pixels", **others)


def found(given: Evidence) -> pd.DataFrame:
    return claims.ledger(given).set_index("claim")


@pytest.mark.parametrize("low, high, margin, significant, expected", [
    (0.1, 2.0, 0.0, True, "holds"), (-0.1, 2.0, 0.0, True, "inconclusive"), (-2.0, -0.1, 0.0, True, "contradicted"),
    (-0.4, 0.1, -0.5, True, "holds"), (0.0, 0.0, 0.0, True, "inconclusive"), (0.1, 2.0, 0.0, False, "inconclusive")])
def test_the_rule_by_hand(low, high, margin, significant, expected):
    assert verdicts.verdict(low, high, margin, significant) == expected


def test_holms_correction_by_hand():
    # 0.01 <= 0.05 / 4, 0.015 <= 0.05 / 3, 0.03 > 0.05 / 2: it and all behind it fall
    assert verdicts.holm([0.03, 0.01, 0.04, 0.015]) == [False, True, False, True]
    assert verdicts.holm([]) == [] and verdicts.holm([0.05]) == [True]


def test_interval_p_and_power_by_hand():
    effect = Effect(np.concatenate([[1.0], np.linspace(-1, 3, 1001)]))
    assert verdicts.interval(effect) == pytest.approx((-0.9, 2.9), abs=0.01)
    spread = float(effect.values[1:].std())
    assert verdicts.p_value(effect, 1.0 - 1.96 * spread) == pytest.approx(0.05, abs=1e-3)
    assert verdicts.power(effect, 1.96 * spread, 0.0) == pytest.approx(0.5, abs=1e-3)
    assert np.isnan(verdicts.power(effect, None, 0.0))


AHEAD, EVEN, BEHIND = 1.2, 0.0, -1.2  # by how many standard deviations a defect's score is higher


@pytest.mark.parametrize("planted, expected", [(AHEAD, "holds"), (EVEN, "inconclusive"), (BEHIND, "contradicted")])
def test_a_planted_effect_and_its_absence_get_the_right_verdict_in_95_of_100(planted, expected):
    """Two methods with the same images and correlated scores, on two categories under three seeds of 60 images each."""
    claim = verdicts.Claim("a beats b", "", "", "points", lambda e: e.gain("a", "b", "i_auroc"))
    chance, right = np.random.default_rng(1), 0
    labels = np.repeat([0, 1], [20, 40])
    for trial in range(100):
        numbers: dict = {"a": {}, "b": {}}
        for key in [("x", category, seed) for category in "pq" for seed in (1, 2, 3)]:
            units = [f"{trial}{key}{i}" for i in range(60)]
            weights = resampling.unit_weights(units, draws=400)
            image = chance.standard_normal(60)
            for method, more in (("a", max(planted, 0)), ("b", max(-planted, 0))):
                score = image + 0.7 * chance.standard_normal(60) + (1.0 + more) * labels
                counts = resampling.count(score, labels)
                exact = dict(i_auroc=counts.draws(np.ones((1, 60)))["i_auroc"][0])
                numbers[method][key] = draws_of(counts, exact, weights, units)
        right += verdicts.judged((claim,), Evidence(numbers))["verdict"].tolist() == [expected]
    assert right >= 95


@pytest.mark.parametrize("planted, expected", [(1.0, "holds"), (0.0, "inconclusive")])
def test_a_planted_effect_on_maps_gets_the_right_verdict_in_95_of_100(planted, expected):
    """The same for PRO, in a ledger of three claims: the defects' pixels of one method's maps are brighter."""
    ledger = tuple(verdicts.Claim(metric, "", "", "points", lambda e, metric=metric: e.gain("a", "b", metric))
                   for metric in ("pro", "p_auroc", "i_auroc"))
    chance, right, sizes = np.random.default_rng(2), 0, (12, 12)
    labels, masks = np.repeat([0, 1], [15, 15]), np.zeros((30, *sizes), dtype=bool)
    masks[15:, 3:6, 4:9] = True
    for trial in range(100):
        units = [f"{trial}/{i}" for i in range(30)]
        weights = resampling.unit_weights(units, draws=200)
        numbers: dict = {"a": {}, "b": {}}
        base = chance.standard_normal((30, *sizes)) + chance.standard_normal((30, 1, 1)) * masks
        for method, more in (("a", planted), ("b", 0.0)):
            maps = base + 0.5 * chance.standard_normal(base.shape) + (1 + more) * masks
            counts = resampling.count(maps.max((1, 2)), labels, maps, masks)
            exact = {name: float(value[0]) for name, value in counts.draws(np.ones((1, 30))).items()}
            numbers[method]["x", "p", 1] = draws_of(counts, exact, weights, units)
        right += verdicts.judged(ledger, Evidence(numbers))["verdict"][0] == expected
    assert right >= 95


def test_sizes_are_compared_on_categories_that_have_them_all():
    given = evidence()
    board, washer = (given.numbers["D3AD"][key] for key in (KEYS[0], KEYS[3]))
    given.numbers["D3AD"] = {KEYS[0]: board | dict(pro_small=sure(80), pro_medium=sure(90), pro_large=sure(85)),
                             KEYS[3]: washer | dict(pro_small=sure(20), pro_medium=sure(30),
                                                    pro_large=np.full_like(sure(0), np.nan))}
    effect = claims.evenness(given)
    assert effect.values[0] == pytest.approx(-10) and effect.keys == (KEYS[0],)


def test_a_lead_over_several_rests_on_runs_that_have_them_all():
    given = evidence(baselines=("A", "B"))
    given.numbers |= {"A": {key: {"pro": sure(90)} for key in KEYS}, "B": {KEYS[3]: {"pro": sure(92)}}}
    effect = claims.ahead_of("pro", "A", "B")(given)
    assert effect.values[0] == pytest.approx(1) and effect.keys == (KEYS[3],)


def test_few_tiles_with_many_exposures_are_few_units():
    labels = np.repeat([0, 1], 30)
    counts = resampling.count(np.random.default_rng(0).standard_normal(60) + labels, labels)
    weights = resampling.unit_weights([f"image {i}" for i in range(60)])
    images, tiles = (draws_of(counts, dict(i_auroc=0.8), weights, [f"{label}/{i // exposures}"
                                                                   for i, label in enumerate(labels)])["i_auroc"]
                     for exposures in (1, 6))
    assert tiles[0] == images[0] == 80
    factor = (tiles[1:] - 80) / (images[1:] - 80)  # of 5 units against 30
    np.testing.assert_allclose(factor, ((6 / 4) / (31 / 29)) ** 0.5 * 2.776 / 2.045, rtol=1e-3)


def test_draws_are_computed_once_and_read_to_the_last_bit(tmp_path):
    drawn = {"pro": 100 * np.random.default_rng(0).random(9), "pro_small": np.full(9, np.nan)}
    asked = []
    for pro in (1 / 3, 1 / 3, 0.25):  # the third time, the outcome is another
        found = kept_draws(tmp_path / "outcome-1.safetensors", dict(pro=pro, pro_small=None),
                           lambda: asked.append(pro) or drawn)
        assert all(found[name].tobytes() == values.tobytes() for name, values in drawn.items())
    assert asked == [1 / 3, 0.25]


def test_a_clear_lead_holds_and_a_deficit_is_contradicted():
    ahead, behind = found(evidence(+3.0)), found(evidence(-3.0))
    for claim in ("an only scaled input detects better than a noised one",
                  "domain adaptation helps a scaled input in PRO", "both together are best",
                  "the dynamic step beats fixed steps in P-AUROC"):
        assert ahead.loc[claim, "verdict"] == "holds" and behind.loc[claim, "verdict"] == "contradicted", claim
    row = ahead.loc["both together are best"]
    assert row["effect"] == row["measured"] == pytest.approx(3.0) and row["low"] <= row["effect"] <= row["high"]
    assert row["units"] == "80 images, 2 categories" and row["setting"].startswith("in this setting: VisA-like")


def test_table_5s_claims_compare_its_own_settings():
    given = evidence(0.0)
    for name, level in {"DS + DA": 94.0, "DA": 84.0, "DS": 92.5, "no DS, no DA": 82.0, "D3AD": 92.5}.items():
        given.numbers[name] = {key: {m: sure(level) for m in METRICS} for key in KEYS}
    rows = found(given)
    for end, effect in (("localises better than a noised one", 10.0), ("scaling helps in PRO", 10.5),
                        ("domain adaptation helps a scaled input in PRO", 1.5),
                        ("domain adaptation helps a noised input in PRO", 2.0),
                        ("downscaling helps more than domain adaptation in PRO", 8.5), ("both together are best", 1.5)):
        row = rows[rows.index.str.endswith(end)].iloc[0]
        assert row["effect"] == pytest.approx(effect) and row["verdict"] == "holds", end


def test_a_claim_on_fixed_steps_names_the_one_that_was_chosen():
    given = evidence(3.0)
    given.fixed["i_auroc"] = "25% (20)"
    rows = found(given)
    for metric, step in (("P-AUROC", "100% (80)"), ("I-AUROC", "25% (20)")):
        setting = rows.loc[f"the dynamic step beats fixed steps in {metric}", "setting"]
        assert f"; over the fixed step {step}, chosen on validation data; 64 pixels" in setting
    assert "fixed step" not in rows.loc["both together are best", "setting"]


def test_omega_hallucination_bins_and_sizes():
    rows = found(evidence(1.0))
    assert rows.loc["PRO falls as omega rises", "effect"] == pytest.approx(10.0, abs=0.1)
    assert rows.loc["PRO falls as omega rises", "reported"] == "declining, 94.1 to 83.8"  # Table 5's DS + DA and DA
    effects = {claim.claim: claim.paper_effect for claim in claims.CLAIMS}
    assert effects["PRO falls as omega rises"] == 10.3 and effects["I-AUROC falls as omega rises"] == 5.2
    assert found(evidence(1.0, slope=5)).loc["PRO falls as omega rises", "verdict"] == "contradicted"
    assert rows.loc["at high levels noise changes good images more (hallucination)", "effect"] == pytest.approx(1.0)
    assert rows.loc["test images lie in higher bins than training images", "effect"] == pytest.approx(2.0)
    assert rows.loc["the distance of Algorithm 2 separates anomalous from good images", "effect"] == pytest.approx(30.0)
    assert rows.loc["anomalies are localised regardless of their scale", "verdict"] == "holds"


def test_reproduced_is_said_of_the_papers_datasets_only():
    claim = "an only scaled input localises better than a noised one"
    of_visa = found(evidence(keys=[("VisA", "candle", 0), ("VisA", "pcb1", 0)])).loc[claim]
    assert of_visa["verdict"] == "reproduced" and of_visa["setting"].startswith("on VisA (candle, pcb1)")
    assert "64 pixels" in of_visa["setting"]
    mixed = found(evidence(keys=[("VisA", "candle", 0), ("Magnetic tiles", "tiles", 0)])).loc[claim]
    assert mixed["verdict"] == "holds" and mixed["setting"].startswith("in this setting")
    assert found(evidence(keys=[("MVTec AD", "pill", 0)])).loc[claim, "verdict"] == "holds"  # the claim is about VisA


def test_the_papers_numbers_are_compared_on_the_same_categories():
    """D3AD at 93 percent everywhere: on pill the paper has 99.2 / 98.2 / 96.2, on bottle 100 / 98.6 / 96.0."""
    rows = found(evidence(keys=[("MVTec AD", "pill", 0), ("MVTec AD", "bottle", 0)]))
    assert rows.loc["I-AUROC on MVTec AD", "effect"] == pytest.approx(93 - (99.2 + 100) / 2)
    assert rows.loc["PRO on MVTec AD", "verdict"] == "contradicted"
    assert rows.loc["P-AUROC on VisA", "verdict"] == rows.loc["PRO on BTAD", "verdict"] == "not tested"
    some = found(evidence(keys=[("VisA", "candle", 0)]))
    assert some.loc["P-AUROC on VisA", "verdict"] == "not tested"  # printed as an average only
    assert some.loc["PRO on VisA", "effect"] == pytest.approx(93 - 92.7)


def with_baselines(d3ad: float, names: dict[str, float], short=frozenset(), seconds=2.0) -> Evidence:
    given = evidence(0.0, baselines=tuple(names), undertrained=frozenset(short))
    for name, level in {**names, "D3AD": d3ad}.items():
        given.numbers[name] = {key: {m: sure(level) for m in METRICS} for key in KEYS}
    times = {"D3AD": seconds, "PatchCore": 1.0, "DRAEM": 5.0, "AnoDDPM": 10.0}
    given.timed = "4 images of a board"
    given.speed = pd.DataFrame([dict(method=m, round=i, seconds=v + 0.01 * i * (m == "D3AD"))
                                for m, v in times.items() for i in range(3)])
    return given


TABLE_1 = {"SPADE": 60.0, "PaDiM": 60.0, "RD4AD": 60.0, "PatchCore": 90.0, "DRAEM": 80.0}


def test_claims_against_baselines():
    best, middling = found(with_baselines(95.0, TABLE_1)), found(with_baselines(86.0, TABLE_1, seconds=0.9))
    assert best.loc["better localisation than each baseline", "effect"] == pytest.approx(5.0)
    names = ["better localisation than each baseline", "better localisation than DRAEM",
             "PatchCore has the better P-AUROC", "slower than PatchCore"]
    assert best.loc[names, "verdict"].tolist() == ["holds", "holds", "contradicted", "holds"]
    assert middling.loc[names, "verdict"].tolist() == ["contradicted", "holds", "holds", "contradicted"]
    assert set(found(evidence()).loc[names, "verdict"]) == {"not tested"}
    assert best.loc["slower than PatchCore", "units"] == "3 rounds"
    assert best.loc["slower than PatchCore", "setting"] == "in this setting: 4 images of a board; 64 pixels"


def test_a_lead_over_short_trainings_or_over_some_of_the_baselines_proves_nothing():
    claim = "better localisation than each baseline"
    short = found(with_baselines(86.0, TABLE_1, short={"DRAEM", "PatchCore"}))
    assert short.loc["better localisation than DRAEM", "verdict"] == "not tested"
    assert short.loc[claim, "verdict"] == "contradicted"  # being behind proves something
    untrained = {name: TABLE_1[name] for name in ("SPADE", "PaDiM", "PatchCore")}
    assert found(with_baselines(95.0, untrained)).loc[claim, "verdict"] == "not tested"
    assert found(with_baselines(86.0, untrained)).loc[claim, "verdict"] == "contradicted"


LATENT = ["a latent model beats one on pixels", "a latent model takes less computing than one on pixels"]


def test_a_latent_model_is_compared_with_those_on_pixels_that_got_what_they_ask_for():
    levels = {"AnoDDPM": 80.0, "DiffusionAD": 90.0}
    full = found(with_baselines(85.0, levels)).loc[LATENT]
    assert full["verdict"].tolist() == ["contradicted", "holds"]  # behind the better one, five times as fast
    assert full["effect"].tolist() == pytest.approx([-5.0, 4.0], abs=0.1)
    of_one = found(with_baselines(95.0, levels, short={"DiffusionAD"})).loc[LATENT[0]]
    assert of_one["verdict"] == "holds" and of_one["effect"] == pytest.approx(15.0)
    none = found(with_baselines(95.0, levels, short=set(levels))).loc[LATENT[0]]
    assert none["verdict"] == "not tested"
    assert none["setting"] == "needs AnoDDPM or DiffusionAD, of its paper's width and trained as it asks"
    assert found(with_baselines(85.0, levels, short=set(levels))).loc[LATENT[0], "verdict"] == "contradicted"


def test_narrowed_networks_are_neither_beaten_nor_timed():
    given = with_baselines(95.0, TABLE_1 | {"AnoDDPM": 80.0})
    given.narrowed = frozenset(("DRAEM", "AnoDDPM"))
    rows = found(given)
    assert set(rows.loc[[*LATENT, "better localisation than DRAEM", "slower than DRAEM"], "verdict"]) == {"not tested"}
    assert rows.loc["slower than PatchCore", "verdict"] == "holds"


def test_which_trainings_were_short():
    rows = pd.DataFrame(dict(method=["PaDiM", "DRAEM", "DDAD"], training=["none needed", "short", "full"]))
    assert undertrained(rows) == {"DRAEM"}


def test_rounds_are_resampled_two_of_three():
    effect = over_rounds(np.array([1.0, 2.0, 3.0]), "x")
    assert effect.values[0] == 2.0 and set(np.unique(effect.values[1:])) == {1.0, 1.5, 2.0, 2.5, 3.0}


def test_every_claim_says_where_it_stands_and_why_its_margin():
    assert len(claims.CLAIMS) >= 36 and len({claim.claim for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    assert all(claim.where and claim.quantity and claim.margin_reason for claim in claims.CLAIMS)


def test_an_empty_run_tests_nothing():
    assert set(claims.ledger(Evidence({}))["verdict"]) == {"not tested"}


@pytest.mark.parametrize("note", sorted((ROOT / "results").glob("*/provenance.json")), ids=str)
def test_no_file_of_a_profile_is_older_than_the_code_of_its_neighbours(note):
    commits = {entry["commit"] for entry in json.loads(note.read_text(encoding="utf-8")).values()}
    commit, = commits
    assert re.fullmatch(r"[0-9a-f]{7,40}", commit)


NO = "does not hold here"


@pytest.mark.parametrize("holds, word", [(True, "holds here"), (False, NO), (np.bool_(False), NO)])
def test_a_finding_is_printed_and_stops_nothing(holds, word, capsys):
    provenance.finding("most defects are flagged", holds)
    assert capsys.readouterr().out == f"most defects are flagged: {word}\n"


@pytest.mark.parametrize("device, is_small, allowed", [
    ("cpu", True, 1e-4), ("cpu", False, 1e-2), ("cuda", True, 1e-2), ("cuda", False, 1e-2)])
def test_small_networks_on_a_cpu_must_agree_best(device, is_small, allowed):
    detector = SimpleNamespace(device=torch.device(device), codec=SimpleNamespace(is_small=is_small))
    assert provenance.tolerance(detector, 1e-4) == pytest.approx(allowed)


@pytest.mark.parametrize("profile, said", [
    ("mvtec", "UNet of 281.1 M weights (300 epochs), features of resnet34 (pretrained), autoencoder kl (pretrained), "
              "lambda 0.85, eta 7"),
    ("mvtec-cpu", "UNet of 3.5 M weights (6000 steps), features of tf_efficientnet_lite0 (pretrained, compared by "
                  "Mahalanobis), autoencoder small (trained here), lambda 0.5, eta 0"),
    ("demo", "(1200 steps on all categories, 200 on each), features of tf_efficientnet_lite0 (pretrained), autoencoder "
             "small (trained here), lambda 0.5, eta 0"),
    ("visa-authors", "(epochs by category), features of resnet34 (pretrained), autoencoder kl (pretrained), lambda "
                     "0.85, eta by category, tuned on the test set by the authors")])
def test_a_setting_says_what_a_verdict_rests_on(profile, said, tmp_path):
    assert in_words(open_workspace(profile, str(tmp_path))).endswith(said)


def test_times_say_what_they_were_taken_on(tmp_path):
    run = open_workspace("smoke", out=str(tmp_path), device="cpu").runs()[0]
    speed = pd.DataFrame([dict(method="D3AD", round=0, seconds=1.0, batch_size=4, threads=1)])
    assert timing_in_words(run, speed) == f"4 images of {run} at once, CPU, 1 thread"
