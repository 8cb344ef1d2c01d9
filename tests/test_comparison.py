"""Baselines on a run of the smoke profile: measured once, by the same metrics as D3AD, and left out with a line where
they can't be.
"""
import json

import pandas as pd
import pytest
from tiny_datasets import draw_tiles

from d3ad import baselines, metrics
from d3ad.study import ablations, comparison, long_runs, measure, method_costs
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


def test_the_paper_s_maps_have_a_row_where_a_profile_has_others(tiny):
    own = tiny.replace(standardise=(), feature_distance="mahalanobis", weight=0.3)
    assert comparison.papers_maps(tiny.replace(standardise=())) == {}
    for config, weight in ((tiny, tiny.weight), (own, 0.85)):
        (changes,) = comparison.papers_maps(config).values()
        shown = config.replace(**changes)
        assert (shown.standardise, shown.feature_distance, shown.weight) == ((), "cosine", weight)


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


def test_the_split_by_tile_comes_first(tmp_path):
    draw_tiles(tmp_path / "mtd")
    runs = ablations.benchmark_runs(open_workspace("mtd", str(tmp_path), str(tmp_path / "out")))
    assert [(run.split, run.config.seed) for run in runs] == [(split, seed) for split in ("by_tile", "random")
                                                              for seed in (3, 4, 5)]


def test_a_variant_has_files_of_its_own(workspace):
    run = workspace.runs()[0]
    versions = [comparison.version_of(run, name) for name in ("PatchCore", "PatchCore 1%")]
    assert versions[0].startswith("patchcore-3-") and versions[1].startswith("patchcore1-3-")


def test_what_a_profile_leaves_out_is_said(workspace):
    waiting = open_workspace("smoke", out=str(workspace.out), long_baselines=["RD4AD", "DDAD"])
    text = comparison.left_out(waiting, [name for name in baselines.BASELINES if name not in ("RD4AD", "DDAD")])
    assert "python -m d3ad.study.measure --profile smoke measures them" in text
    assert text.endswith("not measured yet: DDAD.") and "RD4AD needs about 3 minutes" in text
    text = comparison.left_out(workspace, ["SPADE", "PaDiM", "PatchCore", "DDAD"])
    assert text.startswith("Not measured in this profile; RD4AD needs about ")
    assert "DRAEM" in text and "PaDiM" not in text
    assert "not in this profile's list: SPADE, PaDiM, PatchCore" in comparison.left_out(workspace, [])
    assert comparison.left_out(workspace, list(baselines.BASELINES)).startswith("All of")


def test_costs_are_measured_once_for_all_methods(workspace):
    run, names = workspace.runs()[0], comparison.available(workspace)
    found = method_costs.speed(run, names)
    assert found.groupby("method", sort=False).size().to_dict() == {"D3AD": 3, "SPADE": 3,
                                                                    "DDAD-like": 3} and (found["seconds"] > 0).all()
    assert method_costs.speed(run, names).equals(found)
    table = method_costs.table8(workspace, found, run.name)
    assert table["measured_fps"].tolist() == pytest.approx((1 / table["measured_seconds"]).tolist())
