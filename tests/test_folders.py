"""A folder of photographs of one's own: what its folders' names mean, and that every file in it is accounted for."""
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from brightness import Brightness
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_datasets import photograph

from d3ad import data
from d3ad.app import judging
from d3ad.data import names, tree


@pytest.mark.parametrize("meant, called", {
    "good": "good Good OK ok normal NORMAL train_good Pass i.O.",
    "good test": "good_test test-good OK_Test normal.test",
    "defect": "NG nok bad not_good n.i.O. test_bad Anomaly",
    "mask": "gt Masks ground_truth masks_crack crack_mask Ground-Truth",
    "unclear": "good2 images old_good labels ok_parts", "test": "test VAL validation", "train": "train Training",
    "group": "2024-01-02 cam1 shift_2 early KW12 100CANON A", "system": ".git @eaDir __MACOSX Thumbs.db ._a.png ~$x",
    "other": "crack Kratzer broken_large dent scratch_neck"}.items())
def test_a_name_means_one_thing(meant, called):
    assert {name: names.meaning(name) for name in called.split()} == dict.fromkeys(called.split(), meant)


def test_a_folder_called_icon_is_not_macos_s_hidden_file():
    assert names.meaning("Icon\r") == "system" and names.meaning("icon") == names.meaning("Icon") == "other"


def test_names_are_compared_composed_or_not():
    assert names.normalised("Pru\u0308fung") == names.normalised("PRÜFUNG") and names.meaning("Fru\u0308h") == "group"


def test_a_folder_is_read_as_its_note_says(tmp_path):
    for name in ("Good/cam1/1.png", "Good/cam2/1.png", "good_test/9.png", "crack/a.png", "crack/b.png", "gt/a.png",
                 "gt/b_mask.png", "@eaDir/x.png"):
        photograph(tmp_path / name)
    (tmp_path / "Good/Thumbs.db").write_bytes(b"cache")
    dataset = data.load("folder", tmp_path)
    assert dataset.notes == ("2 good from Good, 2 defects from crack, 1 good (test) from good_test, 2 masks from gt; "
                             "not used: @eaDir, Good/Thumbs.db",)
    assert [s.image.parent.name for s in dataset.train] == ["cam1", "cam2"]
    assert dataset.labels("test").tolist() == [0, 1, 1]
    assert [s.mask.name for s in dataset.test if s.label] == ["a.png", "b_mask.png"]
    assert {str(left.path.relative_to(tmp_path)) for left in dataset.left_out} == {"Good/Thumbs.db", "@eaDir/x.png"}


@pytest.mark.parametrize("files, options, said", [
    (["good/1.png", "good2/1.png"], {}, "say --good good2 or --defects good2"),
    (["good/1.png", "2024-01-02/1.png"], {}, "--defects 2024-01-02"),
    (["good/1.png", "2.png"], {}, "1 images directly in it, beside the folder good"),
    (["crack/1.png", "dent/1.png"], {}, "--good NAME, or --good . for all"),
    (["good/1.png", "ok/1.png"], {}, "good beside good"),
    (["train/good/1.png", "test/hole/1.png"], {}, "in the layout of MVTec AD; give"),
    (["good/1.png"], {"defects": "gone"}, "no folder 'gone' in it"),
    (["good/NG/1.png", "good/2.png"], {}, "with the other kind in a folder inside"),
    (["good/1.png", "crack/a/1.png", "crack/b/1.png", "masks/crack/1.png"], {}, "the same mask as"),
])
def test_what_is_ambiguous_is_asked_for(tmp_path, files, options, said):
    for name in files:
        photograph(tmp_path / name)
    with pytest.raises(data.DataError) as error:
        data.load("folder", tmp_path, **options)
    assert said in str(error.value)


def test_an_answer_settles_it(tmp_path):
    for name in ("good2/1.png", "validation/1.png", "truth/1.png"):
        photograph(tmp_path / name)
    dataset = data.load("folder", tmp_path, good=["good2"], defects="validation", masks="truth")
    assert dataset.test[-1].defect == "validation" and dataset.test[-1].mask.parent.name == "truth"
    for name in ("crack", "dent"):
        photograph(tmp_path / "parts" / name / "1.png")
    assert len(data.load("folder", tmp_path / "parts", good="crack", defects="dent").train) == 1
    with pytest.raises(data.DataError, match="'crack' was given as two things; name each folder once"):
        data.load("folder", tmp_path / "parts", good=["dent", "crack"], defects="Crack")


def test_a_loop_of_links_ends(tmp_path):
    photograph(tmp_path / "a/1.png")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert [(e.name, e.kind) for e in tree.walk(tmp_path)] == [("a/1.png", "image"), ("a/again", "left out")]


parts = st.sampled_from(["good", "OK", "gt", "masks", "2024-01-02", "cam 1", "@eaDir", ".git", "crack", "a", "é"])
files = st.sampled_from(["1.png", "1_mask.png", "2.JPG", "x", "notes.txt", "Thumbs.db", "i.heic", ".hidden.png",
                         "empty.png", "pages.tif", "bad.png", "a\nb.png", "deep.png"])


def content(name: str) -> bytes:
    stream = io.BytesIO()
    picture = Image.new("L", (6, 5), 90)
    if name in ("notes.txt", "Thumbs.db", "i.heic", "bad.png"):
        return b"no picture"
    if name == "empty.png":
        return b""
    if name == "pages.tif":
        picture.save(stream, "tiff", save_all=True, append_images=[picture])
    elif name == "deep.png":
        Image.fromarray(np.full((5, 6), 3000, np.uint16)).save(stream, "png")
    else:
        picture.save(stream, "jpeg" if name == "2.JPG" else "png")
    return stream.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(parts, max_size=3), files), min_size=1, max_size=12))
def test_every_file_is_judged_or_a_mask_or_listed(found):
    with TemporaryDirectory() as folder:
        root, out = Path(folder, "parts"), Path(folder, "out")
        for place, name in found:
            root.joinpath(*place).mkdir(parents=True, exist_ok=True)
            root.joinpath(*place, name).write_bytes(content(name))
        entries = tree.collect([root])
        summary = judging.judge(Brightness(size=16), entries, out, 0.6, "")
        table = pd.read_csv(out / "scores.csv", keep_default_na=False)
        judged = table.loc[table["state"] == "judged", "path"].tolist()
        masks, listed = [e.name for e in entries if e.kind == "mask"], [e.name for e in summary.left_out]
        assert sorted(judged + masks + listed) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*")
                                                         if p.is_file())
        assert sorted(listed) == sorted(table.loc[table["state"] != "judged", "path"])
        assert len(judged) == summary.num_judged and all(summary.left_out[i].reason for i in range(len(listed)))
