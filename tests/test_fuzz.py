"""Random bytes, trees of files, settings and commands: each is taken, or refused in the way that is documented."""
import contextlib
import io
import json
import os
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tiny_datasets import draw_visa

from d3ad import data
from d3ad.app import cli
from d3ad.config import Config
from d3ad.infra import files
from d3ad.infra.thresholds import threshold_for
from d3ad.metrics import image_auroc, pixel_auroc, pro, pro_200
from d3ad.study import runner

pytestmark = pytest.mark.filterwarnings("ignore")  # decoders and numpy have much to say about such values


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((12, 9), 80).convert("RGB").save(stream, kind)
    return stream.getvalue()


PICTURES = {kind: picture(kind) for kind in ("png", "jpeg", "bmp", "tiff", "webp")}


@st.composite
def damaged(draw) -> bytes:
    """A picture with bytes changed, cut or put in."""
    content = bytearray(PICTURES[draw(st.sampled_from(sorted(PICTURES)))])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content) - 1))
        piece = draw(st.binary(max_size=6))
        content[place:place + draw(st.integers(0, 40))] = piece or b"\0"
    return bytes(content)


@given(st.one_of(st.binary(max_size=300), damaged()))
@example(b"").via("an empty file")
def test_any_bytes_are_an_image_or_a_data_error(content):
    with TemporaryDirectory() as folder:
        file = Path(folder, "x.png")
        file.write_bytes(content)
        for read in (data.load_image, data.load_mask):
            try:
                found = read(file, 8)
                assert np.isfinite(np.asarray(found, dtype=float)).all() and found.shape[-2:] == (8, 8)
            except data.DataError as error:
                assert str(error).startswith(f"{file}: ") and "\n" not in str(error).replace(str(file), "")


names = st.sampled_from(["train", "test", "good", "ok", "bad", "hole", "ground_truth", "masks", "mask", "bottle", "01",
                         "000.png", "000_mask.png", "1.jpg",
                         "MT_Free", "Imgs", "exp1_num_5.jpg", "exp1_num_5.png", "MT_Crack", "split_csv", "1cls.csv",
                         ".hidden", "a\nb.png", "é.png", "🔩.bmp"])
trees = st.lists(st.tuples(st.lists(names, min_size=1, max_size=5),
                           st.sampled_from([b"", b"x", PICTURES["png"], b"object,split,label,image,mask\n"])),
                 max_size=14)


@given(trees, st.sampled_from(data.NAMES))
def test_any_tree_of_files_is_a_dataset_or_a_value_error(tree, name):
    with TemporaryDirectory() as folder:
        for parts, content in tree:
            path = Path(folder, *parts)
            with contextlib.suppress(OSError):  # where a file stands in the way of a folder
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        before = sorted(Path(folder).rglob("*"))
        try:
            for category in data.categories(name, folder):
                dataset = data.load(name, folder, category)
                assert dataset.train and all(sample.image.is_file() for sample in dataset.train + dataset.test)
                dataset.check(), dataset.duplicates(), dataset.fingerprint()
        except data.DataError as error:
            assert folder in str(error)
        assert sorted(Path(folder).rglob("*")) == before


@given(st.one_of(st.binary(max_size=200), st.lists(st.lists(st.text(max_size=12), max_size=6), max_size=5).map(
    lambda rows: "\n".join(["object,split,label,image,mask", *(",".join(row) for row in rows)]).encode("utf-8",
                                                                                                       "replace"))))
def test_any_list_of_visa_is_read_or_refused(content):
    with TemporaryDirectory() as folder:
        (draw_visa(Path(folder)) / "split_csv/1cls.csv").write_bytes(content)
        try:
            data.load("visa", folder, "pcb1")
        except data.DataError as error:
            assert folder in str(error)


values = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
                      lambda inner: st.one_of(st.lists(inner, max_size=4),
                                              st.dictionaries(st.text(max_size=3), inner, max_size=2)),
                      max_leaves=6)
fields = st.sampled_from(sorted(Config().to_dict()))


@given(st.dictionaries(st.one_of(fields, fields, st.text(max_size=6)), values, max_size=4))
def test_any_settings_are_a_config_or_a_value_error(changes):
    try:
        config = Config.from_dict(changes)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config and len(config.hash()) == 12


arrays = st.tuples(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(width=32)),
                   hnp.arrays(np.int8, (2, 3, 4), elements=st.integers(-1, 2)))


@given(arrays, st.floats(-1, 2))
def test_any_maps_have_metrics_in_range_or_a_value_error(case, limit):
    maps, masks = case
    for metric, options in ((image_auroc, {}), (pixel_auroc, {}), (pro, dict(fpr_limit=limit)), (pro_200, {})):
        try:
            assert -1e-9 <= metric(maps, masks, **options) <= 1 + 1e-9
        except ValueError as error:
            assert str(error)


@given(st.one_of(st.lists(st.floats(-9, 9), max_size=20), st.lists(st.floats(), max_size=20)),
       st.one_of(st.floats(0.1, 0.5), st.floats()))
@example([0.3, 0.1, 0.2, 0.4, 0.5], 0.4)
@example([0.3, float("inf")], 0.4)
def test_any_scores_have_a_threshold_or_a_value_error(scores, rate):
    try:
        found = threshold_for(scores, rate)
    except ValueError as error:
        assert str(error) and (not scores or not np.isfinite(scores).all() or not 0 < rate <= 0.5)
    else:
        k = max(floor(rate * (len(scores) + 1) + 1e-9), 1)
        assert found.expected_rate == pytest.approx(k / (len(scores) + 1)) and found.value == sorted(scores)[-k]


words = st.one_of(st.sampled_from(["fit", "predict", "evaluate", "check", "synthesize", "good", "nowhere", "model",
                                   "--out", "--set", "--dataset", "--data-root", "mvtec", "mtd",
                                   "--category", "--held-out", "0.2", "--false-alarms", "--profile", "smoke", "--raw",
                                   "--split", "--only", "weave", "--train", "-1", "--", ""]),
                  st.text(max_size=8).filter(lambda word: "\0" not in word))


def answer(main, arguments) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code or 0
    return code, said.getvalue()


@given(st.sampled_from(["fit", "predict", "evaluate", "check"]), st.lists(words, max_size=7))
def test_any_command_ends_with_0_or_2_and_a_line(command, arguments):
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        code, said = answer(cli.main, [command, *arguments])
        assert code in (0, 2) and "Traceback" not in said and (code == 0 or said)
        assert not list(Path(folder).iterdir())


setting = st.one_of(st.tuples(fields, values.map(repr)).map("=".join),
                    st.text(max_size=12).filter(lambda word: "\0" not in word))


@given(st.lists(setting, min_size=1, max_size=3))
@example(["name=other"]).via("`name` was an argument of Config.profile, too")
def test_any_settings_of_a_command_end_before_the_training(changes):
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        arguments = ["fit", "nowhere", "--out", "model", *(word for change in changes for word in (f"--set={change}",))]
        code, said = answer(cli.main, arguments)
        assert code == 2 and "Traceback" not in said and not os.listdir(folder)


@given(st.lists(st.one_of(st.sampled_from(["--profile", "--only", "--out", "--data-root", "nowhere", "visa", "99",
                                           "--update-notebooks", "--normalise"]),
                          st.text(max_size=6).filter(lambda word: "\0" not in word)), min_size=1,
                          max_size=5).filter(lambda words: not any(word.startswith(("-h", "--h")) for word in words)))
def test_any_run_that_makes_no_sense_ends_with_2_and_a_line(arguments):
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        code, said = answer(runner.main,
                            # whatever it says, it has nothing to run
                            ["--profile", "mvtec", *arguments, "--only", "none"])
        assert code == 2 and said and "Traceback" not in said and not os.listdir(folder)


@given(st.binary(max_size=80))
def test_any_bytes_in_the_cache_are_read_or_named(content):
    with TemporaryDirectory() as folder:
        file = Path(folder, "x")
        file.write_bytes(content)
        for read in (files.read_json, files.load_tensors):
            try:
                read(file)
            except ValueError as error:
                assert str(error).startswith(f"{file} is damaged")
