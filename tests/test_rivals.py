"""Rivals on a run of the smoke profile: measured once, by the same metrics as D3AD, and left out with a line where they can't be."""
import pytest

from d3ad import baselines, experiments, metrics, rivals


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return experiments.open_workspace("smoke", out=str(tmp_path_factory.mktemp("out")), categories=["weave"], datasets=["mvtec"],
                                      rivals=["SPADE", "DDAD"], rival_steps=2, rival_width=0.25)


def test_a_rival_is_measured_once_and_by_the_same_metrics(workspace, monkeypatch):
    frame = rivals.summary(workspace, rivals.available(workspace))
    assert frame["method"].tolist() == ["SPADE", "DDAD"] and set(frame["dataset"]) == {"MVTec-like"}
    monkeypatch.setattr(rivals, "make", None)  # a second fit would fail
    run = workspace.runs()[0]
    found = rivals.outcome(run, "DDAD")
    assert found.metrics["i_auroc"] == metrics.image_auroc(found.prediction.score, run.labels)
    assert frame["measured_i_auroc"].iloc[1] == pytest.approx(100 * found.metrics["i_auroc"])
    assert found.prediction.reconstruction.shape == run.images.shape and found.prediction.threshold > 0
    assert rivals.summary(workspace, ["SPADE", "DDAD"]).equals(frame)


def test_rivals_leave_the_detectors_cache_alone(workspace):
    without = experiments.open_workspace("smoke", out=str(workspace.out), categories=["weave"], datasets=["mvtec"])
    assert without.runs()[0].key == workspace.runs()[0].key and without.config.hash() == workspace.config.hash()


def test_a_missing_package_leaves_a_line(workspace, monkeypatch, capsys):
    def missing(name):
        if name == "DDAD":
            raise ImportError("DDAD rests on something")
        return baselines.rival_class(name)

    monkeypatch.setattr(rivals, "rival_class", missing)
    assert rivals.available(workspace) == ["SPADE"]
    assert "DDAD is not measured: DDAD rests on something" in capsys.readouterr().out
