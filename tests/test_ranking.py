"""Means, spreads and ranks of methods, by hand and against published values."""
import pandas as pd
import pytest

from d3ad.study import ablations, ranking


def made_up(values: dict[str, list[float]]) -> pd.DataFrame:
    """Rows of `compared`: for each method a value per category, the same in every metric."""
    return pd.DataFrame([dict(dataset="d", category=str(i), split="random", seed=0, method=method,
                              **{f"measured_{m}": v for m in ablations.METRICS})
                         for method, row in values.items() for i, v in enumerate(row)])


def test_the_word_for_a_training():
    assert [ranking.training_word(*pair) for pair in ((0, 0), (7, 8), (8, 8))] == ["none needed", "short", "full"]


def test_what_was_trained_too_little_is_named_and_never_ranked():
    frame = made_up({"D3AD": [90, 80], "A": [80, 90], "B": [95, 95], "C": [99]}).assign(training=None)
    frame.loc[frame["method"] == "A", "training"] = "full"
    frame.loc[(frame["method"] == "B"), "training"] = ["full", "short"]
    frame.loc[frame["method"] == "C", "training"] = "short"
    found = ranking.marked(ablations.with_averages(frame))
    average = found[found["category"] == "Average"].set_index("method")["training"]
    assert average["B"] == "short" and average["A"] == "full" and pd.isna(average["D3AD"])
    assert "C" not in average  # measured on one of two categories: its mean would be of other images
    assert set(ranking.overall(found, "random")["method"]) == {"D3AD", "A", "B"}
    ranks = ranking.mean_ranks(ranking.rankable(found))
    assert set(ranks.index) == {"D3AD", "A"} and ranks["pro"].tolist() == [1.5, 1.5]
    assert ranking.partly(found) == ["C"]


def test_mean_ranks_by_hand():
    frame = made_up({"A": [90, 80, 70], "B": [80, 80, 90], "C": [70, 60, 80]})
    ranks = ranking.mean_ranks(frame)
    assert ranks["pro"].to_dict() == pytest.approx({"A": (1 + 1.5 + 3) / 3, "B": (2 + 1.5 + 1) / 3,
                                                    "C": (3 + 3 + 2) / 3})
    assert ranks["blocks"].eq(3).all()
    lacking = frame.drop(frame[(frame["method"] == "C") & (frame["category"] == "2")].index)
    assert ranking.mean_ranks(lacking)["blocks"].eq(2).all()  # a block without one method ranks nobody


def test_critical_difference_is_the_published_one():
    # Demsar 2006, Table 5: q at 5 % is 2.343 for 3 methods, 3.164 for 10; his example: 4 methods, 14 data sets, 1.25
    assert ranking.critical_difference(3, 1) == pytest.approx(2.343 * 2 ** 0.5, rel=1e-3)
    assert ranking.critical_difference(10, 10) == pytest.approx(3.164 * (110 / 60) ** 0.5, rel=1e-3)
    assert ranking.critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)
    assert ranking.critical_difference(2, 2) == pytest.approx(1.386, abs=1e-3)


def test_a_mean_and_its_spread_are_of_the_same_runs():
    means = ranking.overall(made_up({"A": [90, 80], "B": [70, 60]}), "random").set_index("method")["measured_pro"]
    assert means.to_dict() == {"A": 85, "B": 65}
    seeds = pd.concat([made_up({"A": [90 + s], "B": [70 - 2 * s]}).assign(seed=s) for s in range(3)])
    found = ranking.over_seeds(seeds).set_index("method")
    assert found["measured_pro"].to_dict() == {"A": 91, "B": 68}
    assert found["spread_pro"].to_dict() == pytest.approx({"A": 1.0, "B": 2.0})
    text = ranking.as_text(found.reset_index(), {"i_auroc": "I-AUROC", "pro": "PRO"})
    assert text.to_dict("records")[0] == {"method": "A", "I-AUROC": "91.0 ± 1.0", "PRO": "91.0 ± 1.0"}


def test_pro_of_200_thresholds_is_averaged_where_the_rows_have_it():
    seeds = pd.concat([made_up({"A": [90, 80]}).assign(seed=s, measured_pro_200=70.0 + s) for s in range(3)])
    for frame in (seeds, ablations.with_averages(seeds)):
        row = ranking.over_seeds(frame).iloc[0]
        assert row["measured_pro"] == 85 and row["measured_pro_200"] == 71 and row["spread_pro_200"] == 1
    assert "measured_pro_200" not in ranking.over_seeds(made_up({"A": [90]}))


def test_averages_of_a_file_are_not_rounded_twice(tmp_path):
    """The file's own average is what is shown: computed anew from rounded rows, it could be another number."""
    seeds = pd.concat([made_up({"A": [90.004 + s]}).assign(seed=s) for s in range(3)])
    whole = ablations.with_averages(seeds)
    assert ranking.over_seeds(whole).equals(ranking.over_seeds(seeds).astype(ranking.over_seeds(whole).dtypes))
    whole.loc[whole["category"] == "Average", "spread_pro"] = 0.85
    assert ranking.over_seeds(whole)["spread_pro"].tolist() == [0.85]
    two = ablations.with_averages(pd.concat([seeds, seeds.assign(dataset="e", measured_pro=80.0)]))
    assert ranking.over_seeds(two)["measured_pro"].tolist() == pytest.approx([(91.004 + 80) / 2])


def test_who_is_ahead():
    made = made_up({"D3AD": [80, 80], "A": [90, 80], "B": [70, 60], "C": [99, 99], "E": [80, 80]})
    frame = ranking.overall(made, "random")
    assert ranking.ahead(frame, "pro") == ["C", "A"] and ranking.ahead(frame, "pro", own="C") == []
