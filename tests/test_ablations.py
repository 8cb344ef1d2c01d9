"""The sweeps: their settings against the paper's, and their tables against metrics computed here."""
import dataclasses

import pandas as pd
import pytest
import torch

from d3ad import metrics
from d3ad.config import Config
from d3ad.study import ablations, looks, paper, switches
from d3ad.study.workspace import open_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return open_workspace("smoke", out=str(tmp_path_factory.mktemp("out")), categories=["weave"], datasets=["mvtec"],
                          seeds=2)


def test_table5s_four_combinations_are_the_papers():
    assert list(ablations.table5(Config.profile("demo"))) == paper.reported(5)["method"].tolist()
    noised = {name: changes.get("omega", 0.0) for name, changes in ablations.table5(Config.profile("demo")).items()}
    adapted = {name: changes["adapt_epochs"] for name, changes in ablations.table5(Config.profile("parts")).items()}
    assert noised == {"no DS, no DA": 1, "DS": 0, "DA": 1, "DS + DA": 0}
    assert adapted == {"no DS, no DA": 0, "DS": 0, "DA": 1, "DS + DA": 1}


def test_every_switch_names_settings_that_exist():
    for switch in switches.SWITCHES:
        Config().replace(**switch.changes)
    assert len({(s.name, s.setting) for s in switches.SWITCHES}) == len(switches.SWITCHES)


@pytest.mark.parametrize("normalisation", ["train", "test"])
def test_a_summary_holds_what_predictions_give(workspace, normalisation):
    workspace = dataclasses.replace(workspace, config=workspace.config.replace(normalisation=normalisation))
    frame = ablations.summary(workspace, {"D3AD": {}, "no DA": dict(adapt_epochs=0)})
    run = workspace.runs()[0]
    for method, changes in (("D3AD", {}), ("no DA", dict(adapt_epochs=0))):
        found = run.variant(**changes).predict(run.images, normalisation)
        row = frame[frame["method"] == method].iloc[0]
        assert row["measured_i_auroc"] == pytest.approx(100 * metrics.image_auroc(found.score, run.labels), abs=1e-4)
        assert row["measured_pro"] == pytest.approx(100 * metrics.pro(found.anomaly_map, run.masks), abs=1e-3)


def test_the_omega_sweep_holds_every_omega_and_every_seed(workspace):
    assert ablations.OMEGAS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    frame = ablations.omega_sweep(workspace)
    assert frame[frame["seed"] == 0]["omega"].tolist() == list(ablations.OMEGAS)
    assert frame[frame["seed"] == 1]["omega"].tolist() == list(ablations.OMEGAS[::2])


def test_levels_beyond_the_training_are_left_out():
    assert looks.high_levels(Config(t_max=80, train_t_max=250)) == [80, 160, 240]


def test_disturbed_images_are_eq_11s(workspace):
    run = workspace.runs()[0]
    scaled, noised = (looks.perturbed(run, run.images[:2], [80, 160], omega) for omega in (0.0, 1.0))
    factor = run.detector.alpha_bar[80].sqrt().float()
    assert torch.allclose(scaled[0]["disturbed"], factor * run.images[:2], atol=1e-6)
    assert noised[1]["disturbed"].std() > scaled[1]["disturbed"].std()
    again = looks.perturbed(run, run.images[1:2], [160], 1.0)
    # noise belongs to the image
    assert torch.allclose(again[0]["reconstruction"], noised[1]["reconstruction"][1:2], atol=1e-5)


def test_settings_that_need_training_are_refused(workspace):
    with pytest.raises(ValueError, match="train_steps"):
        workspace.runs()[0].outcome(train_steps=3)


def test_the_lead_is_over_the_best_of_the_others():
    means = pd.DataFrame({"pro": [90.0, 92.0, 91.0], "i_auroc": [99.0, 97.0, 98.5]}, index=["DIC", "20", "80"])
    found = ablations.leads(means, "DIC")
    assert found["best other"].to_dict() == {"pro": "20", "i_auroc": "80"}
    assert found["lead"].to_dict() == {"pro": -2.0, "i_auroc": 0.5}
    with pytest.raises(KeyError):
        ablations.leads(means, "other")
    assert ablations.titles(means.add_prefix("measured_").assign(measured_p_auroc=float("nan"))) == {
        "i_auroc": "I-AUROC", "pro": "PRO"}
    without_masks = means.assign(**{means.columns[0]: float("nan")})
    assert ablations.leads(without_masks, "DIC").index.tolist() == means.columns[1:].tolist()


def test_gains_of_table_5_by_hand():
    values = dict(zip(ablations.table5(Config.profile("demo")), (80.0, 90.0, 81.0, 92.0)))  # no DS no DA, DS, DA, both
    frame = pd.DataFrame([dict(method=m, category=c, seed=0, measured_pro=v + d)
                          for m, v in values.items() for c, d in (("a", 1), ("b", -1))])
    gains = ablations.component_gains(frame)["pro"].to_dict()
    assert gains == {"DS alone": 10.0, "DA alone": 1.0, "DS on top of DA": 11.0, "DA on top of DS": 2.0}


def test_bins_are_those_that_the_detector_uses(workspace):
    run = workspace.runs()[0]
    train, test = looks.bins_of(run)
    assert len(train) == len(run.training_images) and len(test) == len(run.images)
    assert torch.equal(run.detector.conditioning.steps(test), run.outcome().prediction.t_hat)
    assert torch.equal(test, run.detector.conditioning.bins(run.detector.vectors(run.images)))


def test_features_are_adapted_anew_for_a_noised_setting(workspace):
    run = workspace.runs()[0]
    weights = {name: next(iter(run.variant(**changes).backbone.parameters())) for name, changes in
               (("scaled", {}), ("noised", dict(omega=1.0)), ("guided", dict(guidance=7.0)), ("fewer", dict(k=2)))}
    assert not torch.equal(weights["scaled"], weights["noised"])
    assert not torch.equal(weights["scaled"], weights["guided"])
    assert torch.equal(weights["scaled"], weights["fewer"])  # the adaptation doesn't see it
    plain = run.variant(adapt_epochs=0), run.variant(adapt_epochs=0, omega=1.0)
    assert torch.equal(*(next(iter(detector.backbone.parameters())) for detector in plain))


def test_without_self_inclusion_test_images_lose_their_head_start(workspace):
    run = workspace.runs()[0]
    with_self, without = (looks.bins_of(run, include_self=how) for how in (True, False))
    assert torch.equal(with_self[0], looks.bins_of(run)[0])
    assert without[1].float().mean() <= with_self[1].float().mean()


def test_the_fixed_step_is_chosen_without_test_images(workspace, monkeypatch):
    run = workspace.runs()[0]
    monkeypatch.setattr(type(run), "images", property(lambda self: pytest.fail("a test image was read")))
    rows = pd.DataFrame(looks.validate_steps(run))
    assert rows["method"].tolist() == ["25% (20)", "50% (40)", "75% (60)", "100% (80)"]
    best = rows.assign(measured_pro=[1.0, 3.0, 3.0, 2.0])
    assert ablations.better_fixed(best)["pro"] == "50% (40)"


def test_counts_of_a_run_give_its_numbers(workspace):
    run = workspace.runs()[0]
    numbers, counts = run.numbers(), run.counts()
    drawn = counts.draws(torch.ones(1, len(run.images)).double().numpy())
    assert drawn["i_auroc"][0] == pytest.approx(numbers["i_auroc"]) and len(set(run.units)) == len(run.images)
    assert drawn["pro"][0] == pytest.approx(numbers["pro"], abs=1.5e-3)
    assert torch.equal(run.distances(), run.outcome().prediction.distance)


def test_averages_and_spread_by_hand():
    frame = pd.DataFrame([dict(dataset="A", category=c, split="random", seed=s, method="m", measured_pro=v)
                          for c, s, v in (("x", 0, 80.0), ("y", 0, 90.0), ("x", 1, 82.0), ("y", 1, 92.0))])
    row = ablations.with_averages(frame).iloc[-1]
    assert row["category"] == "Average" and row["measured_pro"] == 86 and row["spread_pro"] == pytest.approx(2 ** 0.5)
    assert pd.isna(row["seed"])


def test_table4_is_in_quarters_of_t_max():
    settings = ablations.table4(Config())
    assert [v.get("t_max") for v in settings.values()] == [20, 40, 60, 80, None]
    assert list(settings) == paper.reported(4)["method"].tolist()
