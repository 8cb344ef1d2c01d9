"""The page on how long the demo's networks are trained."""
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import explore_budget


def test_the_page_has_a_line_for_each_budget_and_marks_the_demos():
    config, study = explore_budget.settings_of("demo")
    own = (config.autoencoder_steps, study.start_steps, study.own_steps)
    rows = [dict(zip(explore_budget.BUDGET, budget)) | dict(category=category, i_auroc=value, p_auroc=98.0, pro=90.0)
            for budget in ((10, 0, 20), own) for category, value in (("board", 96.0), ("gear", 98.0))]
    text = explore_budget.page(pd.DataFrame(rows))
    assert "| 10 | 0 | 20 | 97.0 / 98.0 / 90.0 | 50 |" in text
    assert f"| **{own[0]}** | **{own[1]}** | **{own[2]}** | **97.0 / 98.0 / 90.0** |" in text


def test_a_budget_that_stands_in_the_file_is_not_measured_again(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(explore_budget, "measure", lambda budget: measured.append(budget) or [
        dict(zip(explore_budget.BUDGET, budget)) | dict(category="board", i_auroc=1.0, p_auroc=2.0, pro=3.0)])
    for budgets in ("1/0/2", "1/0/2,1/3/2"):
        monkeypatch.setattr(sys, "argv", ["explore_budget.py", "--out", str(tmp_path), "--budgets", budgets])
        explore_budget.main()
    assert measured == [(1, 0, 2), (1, 3, 2)]
    assert "| 1 | 3 | 2 |" in (tmp_path / "demo-budget.md").read_text(encoding="utf-8")
    for wrong in ("many", "1/2"):
        monkeypatch.setattr(sys, "argv", ["explore_budget.py", "--budgets", wrong])
        with pytest.raises(SystemExit):
            explore_budget.main()
