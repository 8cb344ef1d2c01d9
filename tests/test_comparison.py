"""Baselines on a run of the smoke profile: measured once, by the same metrics as D3AD, and left out with a line where
they can't be.
"""
import json

import pandas as pd
import pytest
from tiny_datasets import draw_tiles

from d3ad import baselines, metrics
from d3ad.study import ablations, comparison, long_runs, measure
from d3ad.study.workspace import open_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return open_workspace("smoke", out=str(tmp_path_factory.mktemp("out")), categories=["weave"], datasets=["mvtec"],
                                      baselines=["SPADE", "DDAD"], baseline_images=8, baseline_width=0.25)


def test_a_baseline_is_measured_once_and_by_the_same_metrics(workspace, monkeypatch):
    frame = comparison.summary(workspace.runs(), comparison.available(workspace))
    assert frame["method"].tolist() == ["SPADE", "DDAD-like"] and set(frame["dataset"]) == {"MVTec-like"}
    monkeypatch.setattr(comparison, "make", None)  # a second fit would fail
    run = workspace.runs()[0]
    found = comparison.outcome(run, "DDAD")
    assert found.metrics["i_auroc"] == metrics.image_auroc(found.prediction.score, run.labels)
    assert frame["measured_i_auroc"].iloc[1] == pytest.approx(100 * found.metrics["i_auroc"])
    assert frame["measured_pro_200"].iloc[1] == pytest.approx(100 * found.metrics["pro_200"])
    assert found.prediction.reconstruction.shape == run.images.shape and found.prediction.threshold > 0
    assert comparison.summary(workspace.runs(), ["SPADE", "DDAD"]).equals(frame)


def test_baselines_leave_the_detectors_cache_alone(workspace):
    without = open_workspace("smoke", out=str(workspace.out), categories=["weave"], datasets=["mvtec"])
    assert without.runs()[0].key == workspace.runs()[0].key and without.config.hash() == workspace.config.hash()


def test_a_missing_package_leaves_a_line(workspace, monkeypatch, capsys):
    check = baselines.check_installed

    def missing(name):
        if name == "DDAD":
            raise ImportError("DDAD rests on something")
        return check(name)

    monkeypatch.setattr(baselines, "check_installed", missing)
    assert comparison.available(workspace) == ["SPADE"]
    assert "DDAD is not measured: DDAD rests on something" in capsys.readouterr().out


def test_what_is_compared_holds_d3ad_with_and_without_noise_too(workspace):
    names = comparison.available(workspace)
    frame = comparison.compared(workspace, workspace.runs(), names)
    single = frame[frame["category"] != "Average"]
    # this profile doesn't standardise maps
    assert single["method"].tolist() == [*ablations.BENCHMARK, *comparison.titles(names)]
    assert single.set_index("method").loc["DDAD-like", "images_asked"] == 0 and single["images"].isna().sum() == 2
    assert single["measured_pro_200"].between(0, 100).all() and "spread_pro_200" in frame
    assert single["training"].dropna().unique().tolist() == ["none needed"]
    assert comparison.compared(workspace, workspace.runs(), [])["method"].isin(ablations.BENCHMARK).all()


def test_the_word_for_a_training():
    assert [comparison.training_word(*pair) for pair in ((0, 0), (7, 8), (8, 8))] == ["none needed", "short", "full"]


def test_what_was_trained_too_little_is_named_and_never_ranked():
    frame = made_up({"D3AD": [90, 80], "A": [80, 90], "B": [95, 95], "C": [99]}).assign(training=None)
    frame.loc[frame["method"] == "A", "training"] = "full"
    frame.loc[(frame["method"] == "B"), "training"] = ["full", "short"]
    frame.loc[frame["method"] == "C", "training"] = "short"
    found = comparison.marked(ablations.with_averages(frame))
    average = found[found["category"] == "Average"].set_index("method")["training"]
    assert average["B"] == "short" and average["A"] == "full" and pd.isna(average["D3AD"])
    assert "C" not in average  # measured on one of two categories: its mean would be of other images
    assert set(comparison.overall(found, "random")["method"]) == {"D3AD", "A", "B"}
    ranks = comparison.mean_ranks(comparison.rankable(found))
    assert set(ranks.index) == {"D3AD", "A"} and ranks["pro"].tolist() == [1.5, 1.5]
    assert comparison.partly(found) == ["C"]


def test_pixel_methods_are_for_some_categories_only(workspace):
    run = workspace.runs()[0]
    assert comparison.is_for(run, "DRAEM")
    few = open_workspace("smoke", out=str(workspace.out), datasets=["mvtec"], baseline_pixel_categories=["plank"])
    weave = next(run for run in few.runs() if run.category == "weave")
    assert not comparison.is_for(weave, "DRAEM") and comparison.is_for(weave, "RD4AD")


def test_long_baselines_are_shown_where_the_cache_has_them(workspace):
    changes = dict(out=str(workspace.out), datasets=["mvtec"], baseline_images=8, baseline_width=0.25)
    none_yet = open_workspace("smoke", long_baselines=["CFA"], baselines=["SPADE"], **changes)
    assert comparison.available(none_yet) == ["SPADE"]
    few = open_workspace("smoke", long_baselines=["PaDiM"], baselines=["SPADE"], **changes)
    assert measure.jobs(few, ["PaDiM"], ["weave"]) == [(run, "PaDiM") for run in few.runs() if run.category == "weave"]
    with pytest.raises(ValueError, match="no category no .allowed: .*weave"):
        measure.jobs(few, ["PaDiM"], ["no"])
    comparison.measure([(run, "PaDiM") for run in few.runs() if run.category == "weave"])
    assert comparison.available(few) == ["SPADE", "PaDiM"]
    shown = comparison.summary(few.runs(), ["PaDiM"])
    assert shown["category"].tolist() == ["weave"]  # what takes hours is measured by nothing but its own command
    assert measure.jobs(few, ["PaDiM"])  # the cache has it, the table hasn't
    comparison.keep_long(next(run for run in few.runs() if run.category == "weave"), "PaDiM")
    assert not measure.jobs(few, ["PaDiM"], ["weave"])


def test_numbers_of_long_baselines_outlive_the_cache(workspace, monkeypatch, capsys):
    out, settings = str(workspace.out), dict(datasets=["mvtec"], baselines=["SPADE"], long_baselines=["PaDiM"])
    monkeypatch.setenv("D3AD_SET", json.dumps(settings))
    arguments = ["--profile", "smoke", "--out", out, "--methods", "PaDiM", "--categories", "weave"]
    with pytest.raises(SystemExit, match="^0$"):
        measure.main(arguments)
    assert "PaDiM on weave: " in capsys.readouterr().out
    some = open_workspace("smoke", out=out)
    run = next(run for run in some.runs() if run.category == "weave")
    measured = comparison.summary([run], ["PaDiM"])
    assert comparison.has_maps(run, "PaDiM")
    for file in run.folder.glob("baseline-padim*"):
        file.unlink()
    pd.testing.assert_frame_equal(comparison.summary([run], ["PaDiM"]), measured, atol=1e-4)
    whole = long_runs.table(some).read_text()
    pd.read_csv(long_runs.table(some)).drop(columns="measured_pro_200").to_csv(long_runs.table(some), index=False)
    assert comparison.summary([run], ["PaDiM"])["measured_pro_200"].isna().all()  # a row of an older commit
    long_runs.table(some).write_text(whole)
    assert comparison.is_for(run, "PaDiM") and not comparison.has_maps(run, "PaDiM")
    other = open_workspace("smoke", out=out, image_size=48).runs()[0]
    assert not comparison.is_kept(other, "PaDiM")  # of other settings
    kept = pd.read_csv(long_runs.table(some))
    with pytest.raises(SystemExit, match="^0$"):
        measure.main(arguments)  # what stands there isn't measured again, nor twice there
    assert pd.read_csv(long_runs.table(some)).equals(kept) and len(kept) == 1
    with pytest.raises(SystemExit, match="SPADE is not one of smoke-changed's long_baselines .PaDiM."):
        measure.main(["--profile", "smoke", "--out", out, "--methods", "SPADE"])


def made_up(values: dict[str, list[float]]) -> pd.DataFrame:
    """Rows of `compared`: for each method a value per category, the same in every metric."""
    return pd.DataFrame([dict(dataset="d", category=str(i), split="random", seed=0, method=method,
                              **{f"measured_{m}": v for m in ablations.METRICS})
                         for method, row in values.items() for i, v in enumerate(row)])


def test_mean_ranks_by_hand():
    frame = made_up({"A": [90, 80, 70], "B": [80, 80, 90], "C": [70, 60, 80]})
    ranks = comparison.mean_ranks(frame)
    assert ranks["pro"].to_dict() == pytest.approx({"A": (1 + 1.5 + 3) / 3, "B": (2 + 1.5 + 1) / 3,
                                                    "C": (3 + 3 + 2) / 3})
    assert ranks["blocks"].eq(3).all()
    lacking = frame.drop(frame[(frame["method"] == "C") & (frame["category"] == "2")].index)
    assert comparison.mean_ranks(lacking)["blocks"].eq(2).all()  # a block without one method ranks nobody


def test_critical_difference_is_the_published_one():
    # Demsar 2006, Table 5: q at 5 % is 2.343 for 3 methods, 3.164 for 10; his example: 4 methods, 14 data sets, 1.25
    assert comparison.critical_difference(3, 1) == pytest.approx(2.343 * 2 ** 0.5, rel=1e-3)
    assert comparison.critical_difference(10, 10) == pytest.approx(3.164 * (110 / 60) ** 0.5, rel=1e-3)
    assert comparison.critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)


def test_a_mean_and_its_spread_are_of_the_same_runs():
    means = comparison.overall(made_up({"A": [90, 80], "B": [70, 60]}), "random").set_index("method")["measured_pro"]
    assert means.to_dict() == {"A": 85, "B": 65}
    seeds = pd.concat([made_up({"A": [90 + s], "B": [70 - 2 * s]}).assign(seed=s) for s in range(3)])
    found = comparison.over_seeds(seeds).set_index("method")
    assert found["measured_pro"].to_dict() == {"A": 91, "B": 68}
    assert found["spread_pro"].to_dict() == pytest.approx({"A": 1.0, "B": 2.0})
    text = comparison.as_text(found.reset_index(), {"i_auroc": "I-AUROC", "pro": "PRO"})
    assert text.to_dict("records")[0] == {"method": "A", "I-AUROC": "91.0 ± 1.0", "PRO": "91.0 ± 1.0"}


def test_pro_of_200_thresholds_is_averaged_where_the_rows_have_it():
    seeds = pd.concat([made_up({"A": [90, 80]}).assign(seed=s, measured_pro_200=70.0 + s) for s in range(3)])
    for frame in (seeds, ablations.with_averages(seeds)):
        row = comparison.over_seeds(frame).iloc[0]
        assert row["measured_pro"] == 85 and row["measured_pro_200"] == 71 and row["spread_pro_200"] == 1
    assert "measured_pro_200" not in comparison.over_seeds(made_up({"A": [90]}))


def test_the_split_by_tile_comes_first(tmp_path):
    draw_tiles(tmp_path / "mtd")
    runs = ablations.benchmark_runs(open_workspace("mtd", str(tmp_path), str(tmp_path / "out")))
    assert [(run.split, run.config.seed) for run in runs] == [(split, seed) for split in ("by_tile", "random")
                                                              for seed in (3, 4, 5)]


def test_a_variant_has_files_of_its_own(workspace):
    run = workspace.runs()[0]
    versions = [comparison.version_of(run, name) for name in ("PatchCore", "PatchCore 1%")]
    assert versions[0].startswith("patchcore-3-") and versions[1].startswith("patchcore1-3-")


def test_averages_of_a_file_are_not_rounded_twice(tmp_path):
    """The file's own average is what is shown: computed anew from rounded rows, it could be another number."""
    seeds = pd.concat([made_up({"A": [90.004 + s]}).assign(seed=s) for s in range(3)])
    whole = ablations.with_averages(seeds)
    assert comparison.over_seeds(whole).equals(comparison.over_seeds(seeds).astype(comparison.over_seeds(whole).dtypes))
    whole.loc[whole["category"] == "Average", "spread_pro"] = 0.85
    assert comparison.over_seeds(whole)["spread_pro"].tolist() == [0.85]
    two = ablations.with_averages(pd.concat([seeds, seeds.assign(dataset="e", measured_pro=80.0)]))
    assert comparison.over_seeds(two)["measured_pro"].tolist() == pytest.approx([(91.004 + 80) / 2])


def test_what_a_profile_leaves_out_is_said(workspace):
    waiting = open_workspace("smoke", out=str(workspace.out), long_baselines=["RD4AD"])
    assert "not measured yet (python -m d3ad.study.measure --profile smoke): RD4AD" in comparison.left_out(waiting, [])
    text = comparison.left_out(workspace, ["SPADE", "PaDiM", "PatchCore", "DDAD"])
    assert text.startswith("Not measured in this profile") and "one core: RD4AD about " in text
    assert "DRAEM" in text and "PaDiM" not in text
    assert "not in this profile's list: SPADE, PaDiM, PatchCore" in comparison.left_out(workspace, [])
    assert comparison.left_out(workspace, list(baselines.BASELINES)).startswith("All of")


def test_who_is_ahead():
    made = made_up({"D3AD": [80, 80], "A": [90, 80], "B": [70, 60], "C": [99, 99], "E": [80, 80]})
    frame = comparison.overall(made, "random")
    assert comparison.ahead(frame, "pro") == ["C", "A"] and comparison.ahead(frame, "pro", own="C") == []


def test_ranks_of_few_methods():
    ranks = comparison.mean_ranks(made_up({"D3AD": [90, 80], "D3AD, fully noised": [70, 90]}))
    assert ranks["pro"].tolist() == [1.5, 1.5] and 0 < comparison.critical_difference(len(ranks), 2) < 2


def test_costs_are_measured_once_for_all_methods(workspace):
    run, names = workspace.runs()[0], comparison.available(workspace)
    found = comparison.speed(run, names)
    assert found.groupby("method", sort=False).size().to_dict() == {"D3AD": 3, "SPADE": 3,
                                                                    "DDAD-like": 3} and (found["seconds"] > 0).all()
    assert comparison.speed(run, names).equals(found)
    table = comparison.table8(workspace, found, run.name)
    assert table["measured_fps"].tolist() == pytest.approx((1 / table["measured_seconds"]).tolist())
