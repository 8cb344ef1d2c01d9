"""The folder of a saved detector may come from anyone: nothing in it is run, nothing is fetched, what is wrong is
named.
"""
import json
import pickle
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3ad import D3AD
from d3ad.app import cli
from d3ad.autoencoders import load_autoencoder
from d3ad.features import FeatureExtractor
from d3ad.infra import checkpoint

SOURCES = sorted((Path(__file__).resolve().parent.parent / "d3ad").rglob("*.py"))
NAN = float("nan")


class Exploding:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def model(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever opens a connection fails the test, even where the error would be caught."""
    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda self,
                        address: asked.append(address) or (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address,
                        **options: asked.append(address) or (_ for _ in ()).throw(OSError("no network")))
    yield
    assert not asked


def test_a_copied_model_loads_from_anywhere(model):
    assert D3AD.load(model).config.name == "smoke"


WEIGHTS = ["autoencoder/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors",
           "features/model.safetensors",
           "conditioning/model.safetensors", "calibration/model.safetensors"]


@pytest.mark.parametrize("file", WEIGHTS)
@pytest.mark.parametrize("how",
                         ["pickle in its place", "pickle beside it", "torch file in its place", "missing", "empty",
                          "cut off", "NaN", "other names"])
def test_weights_that_are_no_weights_are_refused_and_never_run(model, tmp_path, file, how):
    file, trap = model / file, tmp_path / "exploded"
    if how == "pickle in its place":
        file.write_bytes(pickle.dumps(Exploding(trap)))
    elif how == "pickle beside it":
        file.unlink()
        for name in (file.with_suffix(".bin").name, "pytorch_model.bin", "model.pt", "model.ckpt"):
            (file.parent / name).write_bytes(pickle.dumps(Exploding(trap)))
    elif how == "torch file in its place":
        torch.save({"x": Exploding(trap)}, file)
    elif how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "cut off":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        tensors = load_file(file)
        save_file({k: v * NAN if how == "NaN" and v.is_floating_point() else v for k, v in tensors.items()}
                  if how == "NaN" else {f"other.{k}": v for k, v in tensors.items()}, file)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        D3AD.load(model)
    assert str(file.parent) in str(error.value) and "\n" not in str(error.value) and not trap.exists()
    assert cli.main(["predict", str(model), str(tmp_path), "--out", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize("part", ["autoencoder", "unet", "features", "conditioning", "calibration"])
def test_a_missing_part_is_named_and_not_looked_up(model, part, monkeypatch):
    shutil.rmtree(model / part)
    monkeypatch.setattr(socket, "socket", lambda *arguments: pytest.fail("it asked the network"))
    with pytest.raises(FileNotFoundError, match=f"{part}.* is missing: the saved detector is incomplete"):
        D3AD.load(model)


@pytest.mark.parametrize("file, name, message", [
    ("conditioning/model.safetensors", "reference", "holds features of another network or image size"),
    ("calibration/model.safetensors", "latent_mean", "the calibration of . levels has latent_mean of")])
def test_parts_of_another_size_are_refused_when_they_are_read(model, file, name, message):
    tensors = load_file(model / file)
    save_file(tensors | {name: tensors[name][..., 1:].contiguous()}, model / file)
    with pytest.raises(ValueError, match=message):
        D3AD.load(model)


def test_statistics_of_other_levels_are_refused(model):
    file = model / "calibration/model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"levels": tensors["levels"][:-1].contiguous()}, file)
    with pytest.raises(ValueError, match="the calibration of . levels has latent_mean of"):
        D3AD.load(model)


def changed(file: str, *keys: str, value):
    """Replace one value in a JSON file of the model, by the keys that lead to it."""
    def change(model: Path) -> None:
        content = settings = json.loads((model / file).read_text())
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value
        (model / file).write_text(json.dumps(settings))
    return change


def text(file: str, content: str):
    return lambda model: (model / file).write_text(content)


MODEL, AUTOENCODER = "config.json", "autoencoder/config.json"


@pytest.mark.parametrize("spoil, message", [
    (text(MODEL, "not JSON"), "config.json is damaged"), (text(MODEL, ""), "config.json is damaged"),
    (text(MODEL, "[" * 100_000), "config.json is damaged"),
    (text(MODEL, "[]"), "is not of a saved detector"), (text(MODEL, "{}"), "is not of a saved detector"),
    (text(MODEL, "null"), "is not of a saved detector"),
    (lambda model: (model / MODEL).write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    (changed(MODEL, "format", value=0), "has format 0, this version reads 1"),
    (changed(MODEL, "format", value="2"), "has format '2'"),
    (changed(MODEL, "losses", value={"diffusion": [NAN]}), "it holds NaN"),
    (changed(MODEL, "losses", value={"diffusion": ["x"]}), "losses must be lists of numbers"),
    (changed(MODEL, "losses", value=[1]), "losses must be lists of numbers"),
    (changed(MODEL, "config", value=[]), "config.json is not of a saved detector"),
    (changed(MODEL, "config", "nonsense", value=1), "unknown setting 'nonsense'"),
    (changed(MODEL, "config", "k", value=10 ** 9), "k must lie"),
    (changed(MODEL, "config", "name", value="../../x"), "must be fit for a folder"),
    (changed(MODEL, "config", "k", value=5000), "k = 5000 neighbours need"),
    (changed(MODEL, "config", "unet_channels", value=[8192, 8192]), "describes a network of"),
    (changed(MODEL, "config", "unet_channels", value=[32, 64]), "describes a network of"),
    (changed(MODEL, "config", "latent_channels", value=64), "latent channels"),
    (changed(MODEL, "config", "image_size", value=4096), "image_size is 4096, but"),
    (changed(MODEL, "config", "backbone", value="hf-hub:timm/resnet18.a1_in1k"), "is not one of timm's own models"),
    (changed(MODEL, "config", "backbone", value="local-dir:/etc"), "is not one of timm's own models"),
    (changed(MODEL, "config", "backbone", value="../../etc/passwd"), "is not one of timm's own models"),
    (changed(MODEL, "config", "backbone", value="eva_giant_patch14_224"), "describes a network of"),
    (changed(MODEL, "config", "backbone", value="resnet50"), "describes a network of"),
    (changed(MODEL, "autoencoder", value="vq"), "autoencoder must be one of"),
    (changed(MODEL, "autoencoder", value=["small"]), "autoencoder must be one of"),
    (changed(MODEL, "autoencoder", value="kl"), "does not describe the class AutoencoderKL"),
    (changed(MODEL, "threshold", value={"value": 1}), "config.json: "),
    (changed(MODEL, "threshold", value="high"), "config.json: "),
    (changed(MODEL, "threshold", value=dict(value="1", false_alarm_rate=0.1, expected_rate=0.1, interval=[0, 1],
                                            num_images=9)), "config.json: "),
    (changed(MODEL, "threshold", value=dict(value=1.0, false_alarm_rate=0, expected_rate=0.1, interval=[0, 1],
                                            num_images=9)), "false_alarm_rate is out of range"),
    (changed(MODEL, "preset", value=[]), "preset must be text"),
    (text(AUTOENCODER, "not JSON"), "config.json is damaged"),
    (text(AUTOENCODER, "[]"), "does not describe the class SmallAutoencoder"),
    (changed(AUTOENCODER, "_class_name", value="UNet2DModel"), "does not describe the class SmallAutoencoder"),
    (changed(AUTOENCODER, "_class_name", value="../../evil.Evil"), "does not describe the class SmallAutoencoder"),
    (changed(AUTOENCODER, "width", value=10 ** 12), "width is out of range"),
    (changed(AUTOENCODER, "width", value=8192), "describes a network of"),
    (changed(AUTOENCODER, "depth", value=10 ** 9), "depth is out of range"),
    (changed(AUTOENCODER, "width", value="wide"), "describes no SmallAutoencoder"),
    (changed(AUTOENCODER, "width", value=[64]), "describes no SmallAutoencoder"),
    (changed(AUTOENCODER, "width", value=7), "holds no autoencoder of kind 'small'"),
    (changed(AUTOENCODER, "scaling_factor", value=NAN), "it holds NaN"),
    (changed(AUTOENCODER, "scaling_factor", value=0), "scaling_factor"),
    (changed(AUTOENCODER, "auto_map", value={"AutoModel": "evil.Evil"}), "not supported"),
    (changed(AUTOENCODER, "quantization_config", value={"quant_method": "x"}), "not supported"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_settings_that_lie_are_refused(model, spoil, message):
    spoil(model)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        D3AD.load(model)
    assert str(model) in str(error.value) and "\n" not in str(error.value)


def test_no_setting_in_a_model_leads_outside_its_folder(model, fitted, images):
    for name, value in (("autoencoder_weights", "../../other"), ("backbone_weights", "/etc/passwd")):
        changed(MODEL, "config", name, value=value)(model)
    changed("features/config.json", "name", value="hf-hub:x/y")(model)
    # the network is made of the detector's own settings
    changed("unet/config.json", "_class_name", value="Evil")(model)
    assert torch.equal(D3AD.load(model).predict(images[:2]).score, fitted.predict(images[:2]).score)


def test_a_folder_of_pickled_weights_is_refused_where_training_begins(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Exploding(tmp_path / "exploded")))
    with pytest.raises(FileNotFoundError, match="put config.json and diffusion_pytorch_model.safetensors of"):
        load_autoencoder("kl", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Exploding(tmp_path / "exploded")))
    with pytest.raises((ValueError, FileNotFoundError)):
        FeatureExtractor("resnet18", str(tmp_path))
    assert not (tmp_path / "exploded").exists()


def test_the_package_runs_no_text_and_reads_no_pickle():
    forbidden = re.compile(r"\bimport (pickle|marshal|shelve|dill)\b|\bfrom "
                           r"(pickle|marshal|shelve|dill)\b|pickle\.load|torch\.load\(|joblib\.load|"
                           r"(?<![\w.])(eval|exec)\(|shell=True|os\.(system|popen)\(|allow_pickle=True|trust_remote_code=True|yaml\.load\(")
    found = [f"{path.name}: {match[0]}" for path in SOURCES
             for match in forbidden.finditer(path.read_text(encoding="utf-8"))]
    # tensors only, of files whose hash we know
    known = "torch.load(io.BytesIO(content), map_location=\"cpu\", weights_only=True)"
    assert sum(path.read_text(encoding="utf-8").count(known) for path in SOURCES) == 1
    assert len(SOURCES) > 30 and found == ["known_pickles.py: torch.load("]


class Halved(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("factor", torch.tensor(0.5), persistent=False)


def test_what_a_file_does_not_fill_is_never_left_empty():
    with pytest.raises(ValueError, match="factor would stay empty"):
        checkpoint.empty(Halved)
    assert checkpoint.empty(lambda: torch.nn.Linear(2, 2)).weight.device.type == "cpu"
