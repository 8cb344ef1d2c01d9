"""D3AD: fit on normal images, predict anomaly maps and scores, save and load.

The steps of `predict` are those of the paper's Figures 3 and 4: features and T-hat (Algorithm 2), latent, reconstruction
(Algorithm 1), decoded image, latent and feature maps, their sum (Eq. 9), its maximum.
"""
import copy
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from d3ad import conditioning, data, diffusion, maps, ranks, saved, training
from d3ad.autoencoders import HUB, LatentCodec, load_autoencoder
from d3ad.calibration import Calibration, at_step, level_statistics
from d3ad.conditioning import DynamicConditioning
from d3ad.config import Config
from d3ad.data.pixels import DEPTHS
from d3ad.features import FeatureExtractor
from d3ad.files import replacing, tidy
from d3ad.images import as_images, check_training_images, every_nth, image_seed
from d3ad.presets import Networks, low_precision_pays, preset
from d3ad.thresholds import Threshold, threshold_for


# The settings that a trained detector can change: of Algorithms 1 and 2 and of the maps.
VARIABLE = {"omega", "guidance", "num_steps", "spacing", "latent_sample", "dynamic", "k", "num_bins", "t_max", "min_bin", "round_to",
            "include_self", "map_blocks", "weight", "sigma", "standardise", "normalisation", "calibration_images",
            "calibration_levels", "threshold_quantile", "predict_batch", "device"}


@dataclass
class Prediction:
    """What D3AD says of N images, on the CPU."""

    score: Tensor           # (N,) largest value of each anomaly map
    anomaly_map: Tensor     # (N, H, W) Eq. 9, smoothed; about 0..1 on normal images
    reconstruction: Tensor  # (N, 3, H, W) in [-1, 1]
    t_hat: Tensor           # (N,) long, the step of each image
    latent_map: Tensor      # (N, H, W) l_map before normalisation
    feature_map: Tensor     # (N, H, W) f_map before normalisation
    distance: Tensor        # (N,) mean KNN distance of Algorithm 2
    threshold: float        # of scores and of map values, from normal training images

    @property
    def is_anomalous(self) -> Tensor:
        """(N,) bool: the score exceeds the threshold."""
        return self.score > self.threshold

    def __len__(self) -> int:
        return len(self.score)


class D3AD:
    """The detector.  Every setting is a field of `config`."""

    def __init__(self, config: Config | None = None):
        self.config = config or Config()
        self.device = pick_device(self.config.device)
        self.alpha_bar = diffusion.alpha_bar(self.config.beta_start, self.config.beta_end, self.config.num_timesteps)
        self.losses: dict[str, list[float]] = {}
        self.promise: Threshold | None = None  # of the threshold, where good images that were not trained on have set it
        self.preset = "faithful"
        self.white: int | None = None  # of 16-bit images; None: as each set of images says of itself
        self.memory: dict | None = None  # a dict keeps features and latents of each batch, for the variants that follow

    def fit(self, images, folder: Path | str | None = None, codec: LatentCodec | None = None,
            backbone: FeatureExtractor | None = None, value_range: tuple[float, float] | None = None) -> "D3AD":
        """Train on normal images.

        images: a folder, a `d3ad.data.Dataset` (its training images), or a Tensor (N, 3, H, W) in [-1, 1].
        value_range: of a Tensor's values where it is another, such as (0, 1).
        folder: training states are kept there; a fit that was interrupted goes on from them.
        codec, backbone: parts trained or loaded elsewhere; the backbone is copied before it is adapted.
        Raises ValueError for images that don't fit the config, FileNotFoundError for missing weights.
        """
        config = self.config
        if isinstance(images, (str, Path)):
            images = data.load("folder", images)
        if isinstance(images, data.Dataset):
            self.white = images.white
        images = as_images(images, config.image_size, "train", self.white, value_range)
        check_training_images(images, config)  # before any training
        at = (lambda name: Path(folder) / name) if folder else (lambda name: None)
        self.codec = codec or fit_codec(images, config, at("autoencoder"), self.device, self.losses)
        mean, std = training.encode_all(self.codec, images)

        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.unet = training.make_unet(config).to(self.device)
        self.losses["diffusion"] = training.train_diffusion(self.unet, mean, std, config, at("diffusion"))

        backbone = backbone or fit_backbone(images, config, at("features"), self.device, self.losses)
        self._fit_features(images, mean, backbone, at("adaptation"))
        return self

    def _fit_features(self, images: Tensor, mean: Tensor, backbone: FeatureExtractor, folder: Path | None) -> None:
        """Adapt a copy of the feature extractor (Eq. 10); then what rests on it: the bins and the calibration."""
        self.backbone, self.memory, self.promise = copy.deepcopy(backbone), None, None
        if self.config.adapt_epochs:
            self.losses["adaptation"] = training.adapt(self.backbone, self.codec, self.unet, images, mean, self.config, folder)
        self.backbone.eval()
        self._set_networks()
        self.conditioning = self._conditioning().fit(self._knn_features(images))
        self.calibration_images = every_nth(images, self.config.calibration_images)
        self.calibration = self._calibrate(self.calibration_images)

    def readapted(self, images: Tensor, backbone: FeatureExtractor, **changes) -> "D3AD":
        """This detector's autoencoder and diffusion model with a feature extractor adapted anew, from `backbone`.

        images: the training images.  changes: to the settings of Eq. 10 and of all that `variant` may change;
        `adapt_epochs=0` leaves the feature extractor as it is.
        """
        other = copy.copy(self)
        other.config, other.losses = self.config.replace(**changes), dict(self.losses)
        mean, _ = training.encode_all(self.codec, images)
        other._fit_features(images, mean, backbone, None)
        return other

    def predict(self, images, normalisation: str = "train", progress: bool = False,
                value_range: tuple[float, float] | None = None) -> Prediction:
        """Scores and maps of images: a folder, a `d3ad.data.Dataset` (its test images), or a Tensor (N, 3, H, W).

        normalisation: "train" uses the ranges of normal training images, so that each image's score stands for itself;
        "test" uses the range over all the images given, as the authors' evaluation does.
        value_range: of a Tensor's values where it isn't [-1, 1], such as (0, 1).
        All images are held at once; `d3ad.app.judging` takes any number of files in portions.
        """
        images = as_images(images, self.config.image_size, "test", self.white, value_range)
        batches = [batch for batch in ranks.share(images).split(self.config.predict_batch) if len(batch)]
        parts = ranks.gather([self._raw(batch) for batch in tqdm(batches, "predict", disable=not progress)])
        raw = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        return Prediction(**self._fuse(raw, normalisation), threshold=float(self.calibration.threshold),
                          **{key: raw[key] for key in ("reconstruction", "t_hat", "distance")},
                          latent_map=raw["latent"], feature_map=raw["feature"])

    def renormalised(self, prediction: Prediction, normalisation: str) -> Prediction:
        """The same prediction with its maps fused under another normalisation, without predicting anew."""
        raw = dict(latent=prediction.latent_map, feature=prediction.feature_map, t_hat=prediction.t_hat)
        return replace(prediction, **self._fuse(raw, normalisation))

    def set_threshold(self, good_images, false_alarm_rate: float = 0.01) -> Threshold:
        """Set the threshold on good images that were *not* trained on, for this rate of false alarms; returns what it promises.

        good_images: as in `predict`; of a folder or Dataset that also holds anomalous ones only the good.  `fit` alone takes a quantile of training images, which score lower than new ones.
        """
        good_images = as_images(good_images, self.config.image_size, "good", self.white)
        self.promise = threshold_for(self.predict(good_images).score, false_alarm_rate)
        self.calibration = replace(self.calibration, threshold=torch.tensor(self.promise.value, dtype=torch.float64))
        return self.promise

    def variant(self, **changes) -> "D3AD":
        """This detector with other settings of conditioning, reconstruction or maps: same weights, calibrated anew.

        Raises ValueError for a setting that only a new training could change.
        """
        fixed = sorted(set(changes) - VARIABLE)
        if fixed:
            raise ValueError(f"{', '.join(fixed)} can't change without training; what can: {', '.join(sorted(VARIABLE))}")
        other = copy.copy(self)
        other.config, other.promise = self.config.replace(**changes), None
        other.conditioning = other._conditioning()
        if other.conditioning.settings() == self.conditioning.settings():
            other.conditioning = self.conditioning
        else:
            other.conditioning.fit(self.conditioning.reference)
        other.calibration = other._calibrate(every_nth(self.calibration_images, other.config.calibration_images))
        return other

    def with_preset(self, name: str, tiny: LatentCodec | None = None, compiled: bool = False) -> "D3AD":
        """This detector computing as `d3ad.presets.PRESETS[name]` says: same weights, calibrated anew.

        tiny: the tiny autoencoder, for a preset that takes it; None: its weights from the hub.
        compiled: the UNet through torch.compile, for a GPU: on a CPU it gives less than Winograd's way, whose place it takes.
        A threshold that `set_threshold` made belongs to the preset under which it was made: set it again under another.
        The preset that the detector has already changes nothing.
        Raises ValueError for an unknown preset, FileNotFoundError where the tiny autoencoder's weights can't be had.
        """
        chosen, other = preset(name), copy.copy(self)
        if name == self.preset and tiny is None and not compiled:
            return other
        if chosen.tiny and self.codec.kind == "kl":
            other.codec = (tiny or load_autoencoder("tiny", HUB["tiny"])).to(self.device).eval()
        other.preset, other.memory = name, None
        other._set_networks(compiled)
        return other.variant(num_steps=chosen.num_steps or self.config.num_steps)

    def _set_networks(self, compiled: bool = False) -> None:
        """The networks as the preset runs them."""
        low = preset(self.preset).low_precision and low_precision_pays(self.device)
        self.networks = Networks(self.codec, self.unet, self.backbone, torch.bfloat16 if low else torch.float32, compiled)

    def _raw(self, images: Tensor) -> dict[str, Tensor]:
        """Reconstruction and maps of a batch before any normalisation."""
        look = self._look(images)
        return dict(distance=look["distance"].cpu(), t_hat=look["t_hat"].cpu(), **self._compare(look, look["t_hat"]))

    def _look(self, images: Tensor) -> dict:
        """What doesn't depend on the step: features, distance, T-hat, latent, and each image's random stream."""
        seeds = tuple(image_seed(image, self.config.seed) for image in images)
        if self.memory is None or seeds not in self.memory:
            seen = self._see(images.to(self.device))
            if self.memory is not None:
                self.memory[seeds] = seen
        else:
            seen = self.memory[seeds]
        features, (z0, std) = seen
        distance = self.conditioning.distances(conditioning.pool_features(features[self.config.dic_block]))
        t_hat = self.conditioning.steps(conditioning.assign_bins(distance, self.conditioning.edges))
        if not self.config.dynamic:
            t_hat = torch.full_like(t_hat, self.config.t_max)
        if self.config.latent_sample:
            z0 = z0 + std * diffusion.image_noise(z0, [torch.Generator().manual_seed(s + 1) for s in seeds])
        return dict(features=features, distance=distance, t_hat=t_hat, z0=z0, seeds=seeds, size=images.shape[-2:])

    @torch.no_grad()
    def _see(self, x: Tensor) -> tuple[dict[int, Tensor], tuple[Tensor, Tensor]]:
        """Features of a batch, and its latents' mean and standard deviation."""
        return self.networks.features(x), self.networks.encode(x)

    @torch.no_grad()
    def _compare(self, look: dict, t_hat: Tensor) -> dict[str, Tensor]:
        """Reconstruct from the given steps (Algorithm 1), and both maps (Section 4.2)."""
        config = self.config
        generators = [torch.Generator().manual_seed(seed) for seed in look["seeds"]]
        z_hat = diffusion.reconstruct(self.networks.eps, look["z0"], t_hat, self.alpha_bar, config.num_steps,
                                      config.guidance, config.spacing, config.omega, generators)
        x_hat = self.networks.decode(z_hat)
        features, features_hat = look["features"], self.networks.features(x_hat)
        feature = maps.feature_map([features[j] for j in config.map_blocks], [features_hat[j] for j in config.map_blocks],
                                   look["size"])
        raw = dict(reconstruction=x_hat, latent=maps.latent_map(look["z0"], z_hat, look["size"]), feature=feature)
        return {key: value.cpu() for key, value in raw.items()}

    def _standardised(self, raw: dict[str, Tensor], calibration: Calibration) -> tuple[Tensor, Tensor]:
        """Both maps in units of how much normal images vary there, at the level of each image."""
        def here(statistics: Tensor) -> Tensor:
            return at_step(calibration.levels, statistics, raw["t_hat"])

        return ((raw["latent"] - here(calibration.latent_mean)) / here(calibration.latent_std),
                (raw["feature"] - here(calibration.feature_mean)) / here(calibration.feature_std))

    def _fuse(self, raw: dict[str, Tensor], normalisation: str, calibration: Calibration | None = None) -> dict[str, Tensor]:
        """Eq. 9 on normalised maps: the anomaly map and the image score."""
        if normalisation not in ("test", "train"):
            raise ValueError(f'normalisation must be "train" or "test"; got {normalisation!r}')
        calibration = calibration or self.calibration
        latent, feature = self._standardised(raw, calibration)
        if normalisation == "train":
            latent, feature = maps.min_max(latent, *calibration.latent_range), maps.min_max(feature, *calibration.feature_range)
        else:
            latent, feature = maps.min_max(latent), maps.min_max(feature)
        sigma = self.config.sigma * self.config.image_size / 256
        fused = maps.anomaly_map(latent, feature, self.config.weight, sigma)
        return dict(anomaly_map=fused, score=maps.image_score(fused))

    def _calibrate(self, images: Tensor) -> Calibration:
        """Ranges, and where the config asks for it statistics per level and pixel, of normal training images."""
        looks = [self._look(batch) for batch in images.split(self.config.predict_batch)]
        t_hat = torch.cat([look["t_hat"] for look in looks]).cpu()

        def run(steps: list[Tensor]) -> dict[str, Tensor]:
            parts = [self._compare(look, t) for look, t in zip(looks, steps)]
            return {key: torch.cat([part[key] for part in parts]) for key in ("latent", "feature")}

        zero, one, unit = torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([0.0, 1.0])
        c = Calibration(torch.tensor([self.config.t_max]), zero, one, zero, one, unit, unit, torch.tensor(0.0))
        if self.config.standardise:
            levels = torch.tensor(self.conditioning.levels() if self.config.dynamic else [self.config.t_max])
            c.levels = every_nth(levels, self.config.calibration_levels or len(levels))
            runs = [run([torch.full_like(look["t_hat"], int(level)) for look in looks]) for level in c.levels]
            c.latent_mean, c.latent_std = level_statistics([r["latent"] for r in runs])
            c.feature_mean, c.feature_std = level_statistics([r["feature"] for r in runs])
            own = (c.levels - t_hat.unsqueeze(1)).abs().argmin(1)  # the level nearest to each image's own has been run already
            t_hat = c.levels[own]
            raw = {key: torch.stack([r[key] for r in runs])[own, torch.arange(len(own))] for key in ("latent", "feature")}
        else:
            raw = run([look["t_hat"] for look in looks])
        raw["t_hat"] = t_hat
        latent, feature = self._standardised(raw, c)
        c.latent_range, c.feature_range = torch.stack(latent.aminmax()), torch.stack(feature.aminmax())
        c.threshold = self._fuse(raw, "train", c)["score"].quantile(self.config.threshold_quantile)
        return c

    def _conditioning(self) -> DynamicConditioning:
        c = self.config
        return DynamicConditioning(c.k, c.num_bins, c.t_max, c.min_bin, c.round_to, c.include_self)

    @torch.no_grad()
    def _knn_features(self, images: Tensor) -> Tensor:
        block = self.config.dic_block
        return torch.cat([conditioning.pool_features(self.networks.features(batch.to(self.device))[block]).cpu()
                          for batch in images.split(self.config.predict_batch)])

    def save(self, folder: Path | str, card: str = "") -> Path:
        """Write the detector in diffusers' convention, a folder per part with config.json and safetensors.

        card: a text for a person, written beside them as README.md.
        The folder appears only when it is complete; an older detector of that name is replaced, and lost at no moment.
        Raises FileExistsError where the folder holds something else.
        """
        folder = Path(folder)
        check_replaceable(folder)
        with replacing(folder) as part:
            self.write_parts(part, card)
        return folder

    def write_parts(self, folder: Path, card: str = "") -> None:
        """What `save` writes, into a folder that exists."""
        self.codec.model.save_pretrained(folder / "autoencoder")
        self.unet.save_pretrained(folder / "unet")
        save_part(folder / "features", self.backbone.state_dict(), {"name": self.backbone.name})
        save_part(folder / "conditioning", {"reference": self.conditioning.reference}, {})
        save_part(folder / "calibration", vars(self.calibration) | {"images": self.calibration_images}, {})
        settings = {"format": saved.FORMAT, "autoencoder": self.codec.kind, "preset": self.preset,
                    "config": self.config.to_dict(), "losses": self.losses,
                    "threshold": asdict(self.promise) if self.promise else None, "white": self.white}
        (folder / "config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        if card:
            (folder / "README.md").write_text(card, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "D3AD":
        """Read what `save` wrote; nothing in the folder is run, and nothing is fetched.

        Raises FileNotFoundError naming what is missing, ValueError naming a file that is damaged or doesn't fit the others.
        """
        folder = Path(folder)
        if not folder.exists():
            tidy(folder.parent, folder.name)  # a save that was killed between its two renames
        settings = saved.read_settings(folder)
        with saved.naming(folder / "config.json"):
            self = cls(Config.from_dict(settings["config"]).replace(device=device))
            self.losses, self.white = settings["losses"], settings.get("white")
            if self.white is not None and (type(self.white) is not int or self.white not in DEPTHS):
                raise ValueError(f"white must be one of {', '.join(map(str, DEPTHS))}; got {self.white!r}")
            if settings.get("threshold"):
                self.promise = Threshold(**settings["threshold"] | {"interval": tuple(settings["threshold"]["interval"])})
            self.preset = settings.get("preset", self.preset)
            preset(self.preset)
            self._load_parts(folder, settings["autoencoder"])
        return self

    def _load_parts(self, folder: Path, autoencoder: str) -> None:
        config = self.config
        self.codec = load_autoencoder(autoencoder, str(folder / "autoencoder")).to(self.device).eval()
        if self.codec.channels != config.latent_channels:
            raise ValueError(f"latent_channels is {config.latent_channels}, but the autoencoder has {self.codec.channels} latent channels")
        # the networks are made of the detector's own settings, which have bounds, not of a second config.json beside the weights
        weights = folder / "unet" / saved.WEIGHTS
        saved.check_size(weights, lambda: training.make_unet(config))
        self.unet = saved.load_into(training.make_unet(config), weights).to(self.device).eval()
        weights = folder / "features" / "model.safetensors"
        saved.check_size(weights, lambda: FeatureExtractor(config.backbone, "none"))
        self.backbone = saved.load_into(FeatureExtractor(config.backbone, "none"), weights).to(self.device).eval()
        self._set_networks()
        file = folder / "conditioning" / "model.safetensors"
        with saved.naming(file):
            self.conditioning = self._conditioning().fit(saved.read_tensors(file, "reference")["reference"])
        names = [field.name for field in fields(Calibration)]
        stored = saved.read_tensors(folder / "calibration" / "model.safetensors", "images", *names)
        if stored["images"].shape[1:] != (3, config.image_size, config.image_size):
            raise ValueError(f"image_size is {config.image_size}, but the calibration's images are {tuple(stored['images'].shape)}")
        self.calibration_images = stored["images"]
        self.calibration = Calibration(**{name: stored[name] for name in names})


def check_replaceable(folder: Path) -> None:
    """Raise FileExistsError where `D3AD.save` would replace something else than a saved detector."""
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / "calibration").is_dir() and (folder / "config.json").is_file()):
        return
    if folder.exists():
        raise FileExistsError(f"{folder} exists and is not a saved detector, so it is not replaced: choose another folder")


def fit_codec(images: Tensor, config: Config, folder: Path | None, device: torch.device, losses: dict) -> LatentCodec:
    """The autoencoder that the config asks for, loaded, or trained on `images` where it has no weights."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        codec = load_autoencoder(config.autoencoder, config.autoencoder_weights, config.latent_channels).to(device)
    if config.autoencoder_weights == "none":
        losses["autoencoder"] = training.train_autoencoder(codec, images, config, folder)
    return codec.eval().requires_grad_(False)


def fit_backbone(images: Tensor, config: Config, folder: Path | None, device: torch.device, losses: dict) -> FeatureExtractor:
    """The feature extractor that the config asks for, loaded, or trained on `images` where it has no weights."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = FeatureExtractor(config.backbone, config.backbone_weights).to(device)
    if config.backbone_weights == "none" and config.pretrain_steps:
        losses["features"] = training.pretrain(backbone, images, config, folder)
    return backbone.eval().requires_grad_(False)


def pick_device(name: str) -> torch.device:
    """ "auto": cuda, then mps, then cpu.  Raises ValueError for a device that this machine or this PyTorch hasn't."""
    ranks.count()  # of several processes, each has a GPU of its own from here on
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(name, lambda: True)
    if not there():
        raise ValueError(f"device = {name}, but this PyTorch sees no {name.upper()} on this machine: device = auto or cpu")
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def save_part(folder: Path, tensors: dict[str, Tensor], config: dict) -> None:
    """One part of a saved detector: model.safetensors and config.json."""
    folder.mkdir()
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def load_part(folder: Path) -> dict[str, Tensor]:
    """The tensors of one part.  Raises FileNotFoundError or ValueError naming the file."""
    return saved.read_tensors(folder / "model.safetensors")
