"""What is committed under results/ and figures/: complete, in range, and each file with its provenance."""
import hashlib
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d3ad.config import Config
from d3ad.study.settings import features_in_words, study_profiles

ROOT = Path(__file__).resolve().parent.parent
# pictures of datasets without a free licence
UNCOMMITTED = tuple(f"figures/{profile}/" for profile in ("mtd", "btad", "mvtec", "mvtec-cpu", "mvtec-taef2",
                                                          "mvtec-gpu", "elpv"))
FOLDERS = sorted((ROOT / "results").glob("*/provenance.json"))


@pytest.mark.parametrize("note", FOLDERS, ids=lambda path: path.parent.name)
def test_every_file_has_its_provenance(note):
    entries, profile = json.loads(note.read_text(encoding="utf-8")), note.parent.name
    assert profile in study_profiles()
    folders = (note.parent, ROOT / "figures" / profile)
    files = {path.relative_to(ROOT).as_posix() for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert files - set(entries) == {f"results/{profile}/minutes.json", f"results/{profile}/provenance.json"}
    assert all(entry["commit"] != "unknown" and entry["packages"]["torch"] for entry in entries.values())


@pytest.mark.parametrize("note", FOLDERS, ids=lambda path: path.parent.name)
def test_every_file_is_the_one_that_its_provenance_tells_of(note):
    """Edited by hand, or drawn anew without its note: either shows as another SHA-256.  Figures that may not be
    committed are absent.
    """
    entries = json.loads(note.read_text(encoding="utf-8"))
    absent = {path for path in entries if not (ROOT / path).is_file()}
    other = {path for path in set(entries) - absent
             if entries[path].get("sha256") != hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}
    assert not other, "run the notebook that writes them"
    assert all(path.startswith(UNCOMMITTED) for path in absent)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/*.csv")),
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_number_is_in_range(path):
    frame = pd.read_csv(path)
    values = frame.filter(regex="^(measured|reported)_(i_auroc|p_auroc|pro)$").to_numpy(dtype=float)
    assert len(frame) and np.all(np.isnan(values) | ((values >= 0) & (values <= 100)))
    assert (frame["profile"] == (path.stem if path.parent.name == "long" else path.parent.name)).all()


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/table*.csv")),
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_table_names_its_backbone(path):
    """In the CSV file; in Markdown and LaTeX with all that its measured cells rest on."""
    config = Config.profile(path.parent.name)
    frame = pd.read_csv(path)
    assert list(frame)[-2:] == ["profile", "backbone"] and (frame["backbone"] == config.backbone).all()
    pixels, nothing = f"{config.image_size} x {config.image_size} pixels", "Nothing of it was measured in the profile"
    for laid_out in filter(Path.exists, (path.with_suffix(".md"), path.with_suffix(".tex"))):
        text = laid_out.read_text(encoding="utf-8")
        assert (features_in_words(config) in text and pixels in text) or nothing in text
        assert laid_out.suffix != ".tex" or not re.search(r"(?<!\\)%", text)  # would begin a comment


@pytest.mark.parametrize("name", ["benchmark", "noise"])
def test_the_split_that_counts_comes_first(name):
    assert list(pd.read_csv(ROOT / f"results/mtd/{name}.csv")["split"].unique()) == ["by_tile", "random"]


def test_pictures_are_light():
    pictures = list((ROOT / "figures").rglob("*.png"))
    assert sum(path.stat().st_size for path in pictures) < 6_000_000


def test_no_picture_of_a_dataset_without_a_free_licence():
    kept = subprocess.run(["git", "-C", str(ROOT), "ls-files", "figures"], capture_output=True,
                          text=True).stdout.split()
    assert not [path for path in kept if path.startswith(UNCOMMITTED)]
