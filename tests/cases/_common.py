"""Helpers of the case scripts: small drawn files, a detector that needs no training, and a verdict.

Each script is what went wrong for somebody who inspects parts; test_cases.py runs them all. Alone, from the checkout:
PYTHONPATH=. python tests/cases/NN-name.py. Exit code 0: behaves as it should; 1: it fails; 3: not tried (says why).
"""
import atexit
import contextlib
import io
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

warnings.filterwarnings("ignore")
import numpy as np
from PIL import Image

TMP = Path(tempfile.mkdtemp(prefix="case-"))
atexit.register(shutil.rmtree, TMP, True)
_rng = np.random.default_rng(0)


def picture(path, size=(48, 48), mode="RGB", **options):
    """A random picture, size = (width, height)."""
    path = Path(path); path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(path, **options)
    return path


def square(size=(48, 48), box=(10, 20)):
    """A mask array (H, W): 255 in a square."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[box[0]:box[1], box[0]:box[1]] = 255
    return mask


def mask_file(path, array=None, **options):
    path = Path(path); path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(square() if array is None else array).save(path, **options)
    return path


def prediction_of(maps, threshold, images=None):
    """A `Prediction` with given maps (N, H, W)."""
    import torch

    from d3ad.detector import Prediction
    n, h, w = maps.shape
    return Prediction(score=maps.flatten(1).amax(1), anomaly_map=maps, t_hat=torch.full((n,), 20),
                      reconstruction=torch.zeros(n, 3, h, w) if images is None else images,
                      latent_map=maps, feature_map=maps, distance=torch.zeros(n), threshold=threshold)


class Stub:
    """What the command line asks of a loaded detector; its maps are just the images' brightness."""
    guarantee, preset, white = None, "faithful", None

    def __init__(self):
        import torch

        from d3ad import Config
        from d3ad.infra.processes import ALONE
        self.config, self.team, self.device = Config.profile("smoke"), ALONE, torch.device("cpu")
        self.codec = SimpleNamespace(is_small=False)
        self.calibration = SimpleNamespace(threshold=torch.tensor(0.9))

    def predict(self, images, normalisation="train", progress=False):
        from d3ad.data.given import as_images
        images = as_images(images, self.config.image_size, "test")
        return prediction_of((images.mean(1) + 1) / 2, 0.9, images)



def run_cli(*arguments, detector=None):
    """python -m d3ad ARGUMENTS in this process: (exit code, stdout, stderr). A stub replaces the loaded model."""
    from d3ad.app import cli
    from d3ad.speed import presets
    out, err = io.StringIO(), io.StringIO()
    kept = presets.load
    presets.load = lambda folder, device="auto": detector or Stub()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main([str(a) for a in arguments])
            except SystemExit as stop:
                code = stop.code
            except BaseException as error:  # what a shell would show as a traceback
                code = f"TRACEBACK {type(error).__name__}: {str(error)[:200]}"
    finally:
        presets.load = kept
    return code, out.getvalue(), err.getvalue()


def attempt(function):
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def verdict(ok, said):
    print(("PASS  " if ok else "FAIL  ") + said)
    sys.exit(0 if ok else 1)


def skip(why):
    print("NOT TRIED  " + why)
    sys.exit(3)
