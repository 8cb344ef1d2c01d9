"""D3AD: fit on normal images, predict anomaly maps and scores, save and load.

The steps of `predict` are those of the paper's Figures 3 and 4: features and T-hat (Algorithm 2), latent,
reconstruction (Algorithm 1), decoded image, latent and feature maps, their sum (Eq. 9), its maximum.
"""
import copy
import itertools
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from math import isnan
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from d3ad import calibration, conditioning, data, diffusion, from_scratch, maps, training
from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.calibration import Calibration
from d3ad.conditioning import DynamicConditioning
from d3ad.config import ADAPTATION, AUTOENCODER, DATA, DIFFUSION, FEATURES, PREDICTION, Config
from d3ad.data.apart import set_apart, spread_over
from d3ad.data.given import as_images
from d3ad.data.moving import image_seed
from d3ad.data.pixels import check_white
from d3ad.features import FeatureExtractor
from d3ad.infra import checkpoint
from d3ad.infra.batches import in_batches
from d3ad.infra.devices import pick_device
from d3ad.infra.processes import ALONE, Alone
from d3ad.infra.spread import Spread
from d3ad.infra.thresholds import Threshold, threshold_for

# settings that trained weights depend on; the adaptation sees reconstructions
TRAINED = (*Config.names(DATA, AUTOENCODER, FEATURES, DIFFUSION, ADAPTATION), "t_max", "num_steps", "spacing",
           "guidance", "omega", "second_sampler")


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
    threshold: float        # of scores and of map values, from normal images; NaN under normalisation "test"

    @property
    def is_anomalous(self) -> Tensor:
        """(N,) bool: the score exceeds the threshold.  Raises ValueError where there is none."""
        if isnan(self.threshold):
            raise ValueError('there is no threshold for scores under normalisation "test": the detector\'s belongs to '
                             'the ranges of training images; predict with normalisation="train"')
        return ~(self.score <= self.threshold)  # NaN must not pass for good

    def __len__(self) -> int:
        return len(self.score)


class Networks:
    """A detector's three networks as `predict` calls them; d3ad/speed/presets.py has faster ones."""

    def __init__(self, codec: LatentCodec, unet: torch.nn.Module, backbone: FeatureExtractor):
        self.codec, self.unet, self.backbone = codec, unet, backbone

    @classmethod
    def plain(cls, detector: "D3AD") -> "Networks":
        """A detector's own, as they are."""
        return cls(detector.codec, detector.unet, detector.backbone)

    def see(self, images: Tensor, config: Config) -> tuple[dict[int, Tensor], Tensor, tuple[Tensor, Tensor]]:
        """phi's blocks of images (B, 3, H, W) in [-1, 1], the vectors (B, D) that Algorithm 2 compares, and mean and
        standard deviation of the latents (B, C, h, w).
        """
        features = self.features(images)
        return features, self.vectors(images, config, features), self.encode(images)

    def vectors(self, images: Tensor, config: Config, features: dict[int, Tensor] | None = None) -> Tensor:
        """What Algorithm 2 compares, (B, D).  features: phi's blocks of the images, where they are known."""
        if config.dic_normalise:
            features = self.features(conditioning.one_brightness(images))
        return conditioning.pool_features((features or self.features(images))[config.dic_block])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of latents, as `LatentCodec.encode`."""
        return self.codec.encode(images)

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """phi's blocks, as `FeatureExtractor`."""
        return self.backbone(images)

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        """eps_theta(z, t), t the 0-based training index (B,)."""
        return self.unet(z, t).sample

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], as `LatentCodec.decode`."""
        return self.codec.decode(latents)


class D3AD:
    """The detector.

    config: every setting.  team: the processes that share the work, see d3ad/infra/processes.py.
    make_networks: gives a trained detector what `predict` calls; `presets.own_networks` makes faster ones.
    """

    def __init__(self, config: Config | None = None, team: Alone = ALONE,
                 make_networks: Callable[["D3AD"], Networks] = Networks.plain):
        self.config, self.team, self.make_networks = config or Config(), team, make_networks
        self.device = pick_device(self.config.device)
        self.alpha_bar = diffusion.alpha_bar(self.config.beta_start, self.config.beta_end, self.config.num_timesteps)
        self.losses: dict[str, list[float]] = {}
        self.guarantee: Threshold | None = None  # where good images that were not trained on have set the threshold
        # the preset that its settings and threshold belong to; `presets.load` also computes as it says
        self.preset = "faithful"
        self.white: int | None = None  # of 16-bit images; None: as each set of images says of itself

    def fit(self, images, folder: Path | str | None = None, codec: LatentCodec | None = None,
            backbone: FeatureExtractor | None = None, value_range: tuple[float, float] | None = None,
            start: torch.nn.Module | None = None) -> "D3AD":
        """Train on normal images.

        images: a folder, a `d3ad.data.Dataset` (its training images), a Tensor (N, 3, H, W) in [-1, 1], or what else
        `d3ad.data.given.as_images` takes; other sizes are resized.
        value_range: of a Tensor's values where it is another, such as (0, 1).
        folder: training states are kept there; a fit that was interrupted goes on from them.
        codec, backbone: parts trained or loaded elsewhere; the backbone is copied before it is adapted.
        start: a UNet from whose weights the training of the diffusion model sets out; None: from random ones.
        Raises ValueError for images or a codec that don't fit the config, or a folder with states of other images,
        settings or networks; FileNotFoundError for missing weights.
        """
        config = self.config
        if isinstance(images, (str, Path)):
            images = data.open_folder(images, "train")
        self.white = getattr(images, "white", None)  # of a dataset
        images = as_images(images, config.image_size, "train", self.white, value_range)
        training.check_training_images(images, config)  # before any training
        if codec is None and config.autoencoder_weights == "none" and not config.autoencoder_steps:
            raise ValueError('autoencoder_weights = "none" takes autoencoder_steps above 0: else it stays at random')
        if backbone is None and config.backbone_weights == "none" and not config.pretrain_steps:
            raise ValueError('backbone_weights = "none" takes pretrain_steps above 0: else it stays at random')
        if codec:
            codec.check_channels(config.latent_channels)
        if folder:
            given = [part for part in (codec, backbone, start) if part is not None]
            checkpoint.claim(Path(folder), config.hash(*TRAINED), images, self.team.is_first, given)
        images, held = set_apart(images, config.calibration_share)
        at = (lambda name: Path(folder) / name) if folder else (lambda name: None)
        self.codec = codec or from_scratch.fit_codec(images, config, at("autoencoder"), self.losses, self.team)
        backbone = backbone or from_scratch.fit_backbone(images, config, at("features"), self.losses)
        mean, std = training.latents(self.codec, images, config)
        self.unet = training.fit_unet(mean, std, config, at("diffusion"), self.losses, self.team, start)
        self._fit_features(images, held, mean[:len(images)], backbone, at("adaptation"))
        return self

    def _fit_features(self, images: Tensor, held: Tensor, mean: Tensor, backbone: FeatureExtractor,
                      folder: Path | None) -> None:
        """Adapt a copy of the feature extractor (Eq. 10); then what rests on it: the bins and the calibration."""
        self.backbone, self.guarantee = copy.deepcopy(backbone), None
        if self.config.adapt_epochs:
            self.losses["adaptation"] = training.adapt(self.backbone, self.codec, self.unet, images, mean, self.config,
                                                       folder)
        self.backbone.eval()
        self.networks = self.make_networks(self)
        self.conditioning = DynamicConditioning.of(self.config).fit(self.vectors(images))
        self.calibration_images = spread_over(held, self.config.calibration_images)
        self.calibration = self._calibrate()

    def readapted(self, images: Tensor, backbone: FeatureExtractor, **changes) -> "D3AD":
        """This detector's autoencoder and diffusion model with a feature extractor adapted anew, from `backbone`.

        images: the normal images of `fit`.  changes: to the settings of Eq. 10 and of all that `variant` may change;
        `adapt_epochs=0` leaves the feature extractor as it is.  Raises ValueError for another setting.
        """
        _check_changes(changes, *Config.names(ADAPTATION))
        other = copy.copy(self)
        other.config = self.config.replace(**changes)
        other.losses = {name: losses for name, losses in self.losses.items() if name != "adaptation"}
        images, held = set_apart(images, self.config.calibration_share)
        other._fit_features(images, held, self.codec.encode_all(images)[0], backbone, None)
        return other

    def predict(self, images, normalisation: str = "train", progress: bool = False,
                value_range: tuple[float, float] | None = None) -> Prediction:
        """Scores and maps of images, given as in `fit`; of a `d3ad.data.Dataset` the test images.

        normalisation: "train" uses the ranges of normal training images, so that each image's score stands for itself;
        "test" uses the range over all the images given, as the authors' evaluation does; to that no threshold belongs.
        value_range: of a Tensor's values where it isn't [-1, 1], such as (0, 1).
        Raises ValueError for another normalisation, no image, or values outside the range.  All images are held at
        once; `d3ad.app.judging` takes any number of files in portions.
        """
        images = as_images(images, self.config.image_size, "test", self.white, value_range)
        batches = [batch for batch in self.team.share(images).split(self.config.predict_batch) if len(batch)]
        parts = []
        for batch in tqdm(batches, "predict", disable=not progress):
            seen = self._look(batch)
            compared = self._compare(seen, seen["t_hat"])
            parts.append(compared | {key: seen[key].cpu() for key in ("t_hat", "distance")})
        parts = self.team.gather(parts)
        values = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        anomaly_map, score = self._fuse(values["latent_map"], values["feature_map"], values["t_hat"],
                                        normalisation=normalisation)
        return Prediction(score, anomaly_map, threshold=self._threshold_under(normalisation), **values)

    def renormalised(self, prediction: Prediction, normalisation: str) -> Prediction:
        """The same prediction with its maps fused under another normalisation, without predicting anew."""
        anomaly_map, score = self._fuse(prediction.latent_map, prediction.feature_map, prediction.t_hat,
                                        normalisation=normalisation)
        return replace(prediction, anomaly_map=anomaly_map, score=score,
                       threshold=self._threshold_under(normalisation))

    def _threshold_under(self, normalisation: str) -> float:
        """The threshold of a prediction; NaN where the maps' own ranges move its scores."""
        return float(self.calibration.threshold) if normalisation == "train" else float("nan")

    def set_threshold(self, good_images, false_alarm_rate: float = 0.01,
                      value_range: tuple[float, float] | None = None) -> Threshold:
        """Set the threshold for a rate of false alarms, on good images that were *not* trained on.

        good_images: as in `predict`; of a folder or Dataset that also holds anomalous ones only the good.  `fit`
        alone takes a quantile of training images, which score lower than new ones.
        value_range: as in `predict`.  Raises ValueError for no good image, or a rate outside (0, 0.5].
        """
        good_images = as_images(good_images, self.config.image_size, "good", self.white, value_range)
        # their range is known by now, so that nothing is warned of twice
        scores = self.predict(good_images, value_range=(-1, 1)).score
        self.guarantee = threshold_for(scores, false_alarm_rate)
        self.calibration = replace(self.calibration, threshold=torch.tensor(self.guarantee.value, dtype=torch.float64))
        return self.guarantee

    def variant(self, networks: Networks | None = None, **changes) -> "D3AD":
        """This detector with other settings of conditioning, reconstruction or maps: same weights, calibrated anew.

        networks: others to predict with.  `calibration_images` can only be lowered: `fit` kept no more.
        Raises ValueError for a setting that only a new training could change.
        """
        _check_changes(changes)
        other = copy.copy(self)
        other.config, other.guarantee, other.networks = self.config.replace(**changes), None, networks or self.networks
        other.conditioning = DynamicConditioning.of(other.config)
        if other.conditioning.settings() == self.conditioning.settings():
            other.conditioning = self.conditioning
        else:
            other.conditioning.fit(self.conditioning.reference)
        other.calibration = other._calibrate()
        return other

    @torch.no_grad()
    def _look(self, images: Tensor) -> dict:
        """What doesn't depend on the step: features, distance, T-hat, latent, and each image's random stream."""
        seeds = [image_seed(image, self.config.seed) for image in images]
        features, vectors, (z0, std) = self.networks.see(images.to(self.device), self.config)
        distance = self.conditioning.distances(vectors)
        t_hat = self.conditioning.steps(conditioning.assign_bins(distance, self.conditioning.edges))
        if not self.config.dynamic:
            t_hat = torch.full_like(t_hat, self.config.t_max)
        if self.config.latent_sample:
            z0 = z0 + std * diffusion.image_noise(z0, [torch.Generator().manual_seed(seed + 1) for seed in seeds])
        return dict(features=features, distance=distance, t_hat=t_hat, z0=z0, seeds=seeds, size=images.shape[-2:])

    @torch.no_grad()
    def _rebuild(self, seen: dict, t_hat: Tensor) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """Reconstruct from the given steps (Algorithm 1): latents, images, and their features."""
        config = self.config
        generators = [torch.Generator().manual_seed(seed) for seed in seen["seeds"]]
        z_hat = diffusion.reconstruct(self.networks.eps, seen["z0"], t_hat, self.alpha_bar, config.num_steps,
                                      config.guidance, config.spacing, config.omega, generators,
                                      first_direction=config.dynamic or not config.second_sampler)
        x_hat = self.networks.decode(z_hat)
        return z_hat, x_hat, self.networks.features(x_hat)

    @torch.no_grad()
    def _compare(self, seen: dict, t_hat: Tensor) -> dict[str, Tensor]:
        """Reconstruct from the given steps (Algorithm 1), and both maps (Section 4.2)."""
        z_hat, x_hat, features_hat = self._rebuild(seen, t_hat)
        compared = dict(reconstruction=x_hat, latent_map=maps.latent_map(seen["z0"], z_hat, seen["size"]),
                        feature_map=self.feature_map(seen["features"], features_hat, seen["size"]))
        return {key: value.cpu() for key, value in compared.items()}

    def feature_map(self, features: dict[int, Tensor], features_hat: dict[int, Tensor], size: tuple[int, int]
                    ) -> Tensor:
        """f_map (B, H, W) of phi's blocks of images and of their reconstructions, by the config's distance."""
        blocks = self.config.map_blocks
        return maps.feature_map([features[j] for j in blocks], [features_hat[j] for j in blocks], size, self._usual())

    def _usual(self) -> list[tuple[Tensor, Tensor]]:
        """What differences of features are measured by, for each block of the map; nothing where they are cosine."""
        if self.config.feature_distance == "cosine":
            return []
        return self.calibration.usual_differences([self.backbone.widths[j] for j in self.config.map_blocks])

    def _fuse(self, latent: Tensor, feature: Tensor, t_hat: Tensor, calibrated: Calibration | None = None,
              normalisation: str = "train") -> tuple[Tensor, Tensor]:
        """Eq. 9: anomaly maps and scores of maps before any normalisation."""
        return calibration.fuse(latent, feature, t_hat, calibrated or self.calibration, self.config.weight,
                                self.config.sigma_pixels, normalisation)

    def _calibrate(self) -> Calibration:
        """Ranges of the calibration images' maps, and, where the config asks for them, statistics per level and pixel,
        and the usual differences of features.  `self.calibration` is set on the way.
        """
        config = self.config
        images = spread_over(self.calibration_images, config.calibration_images)
        if config.standardise and len(images) < 2:
            raise ValueError("one calibration image has no standard deviation: raise calibration_images, or set "
                             "standardise = []")
        batches = [self._look(batch) for batch in images.split(config.predict_batch)]
        levels = torch.tensor(self.conditioning.levels() if config.dynamic else [config.t_max])
        levels = spread_over(levels, config.calibration_levels or len(levels))

        differences = self._usual_differences(batches, levels) if config.feature_distance == "mahalanobis" else {}
        self.calibration = replace(Calibration.neutral(), **differences)  # `feature_map` reads it

        def maps_at(t_hat: Tensor) -> tuple[Tensor, Tensor]:
            steps = t_hat.split(config.predict_batch)
            parts = [self._compare(seen, t) for seen, t in zip(batches, steps, strict=True)]
            return tuple(torch.cat([part[key] for part in parts]) for key in ("latent_map", "feature_map"))

        t_hat = torch.cat([seen["t_hat"] for seen in batches]).cpu()
        found = calibration.calibrate(maps_at, t_hat, levels, config.standardise,
                                      lambda *maps_and_step: self._fuse(*maps_and_step)[1], config.threshold_quantile)
        return replace(found, **differences)

    def _usual_differences(self, batches: list[dict], levels: Tensor) -> dict[str, Tensor]:
        """Mean and whitening of the differences between features of images and of their reconstructions, over places,
        images and levels.
        """
        spreads = {j: Spread() for j in self.config.map_blocks}
        for seen, step in itertools.product(batches, levels):
            features_hat = self._rebuild(seen, torch.full_like(seen["t_hat"], int(step)))[2]
            for j, spread in spreads.items():
                spread.add(seen["features"][j] - features_hat[j])
        mean, whitening = zip(*(spread.whitening() for spread in spreads.values()))
        return dict(difference_mean=torch.cat(mean), difference_whitening=torch.block_diag(*whitening))

    def vectors(self, images: Tensor) -> Tensor:
        """The features y that Algorithm 2 compares, of images (N, 3, H, W) in [-1, 1]: (N, D), on the CPU."""
        def look(batch: Tensor) -> dict[str, Tensor]:
            return {"y": self.networks.vectors(batch, self.config)}
        return in_batches(look, images, self.config.predict_batch, self.device)["y"]

    def save(self, folder: Path | str, card: str = "") -> Path:
        """Write the detector in diffusers' convention, a folder per part with config.json and safetensors.

        card: a text for a person, written beside them as README.md.
        The folder appears only when it is complete; an older detector of that name is replaced, and lost at no moment.
        Raises FileExistsError where the folder holds something else.
        """
        models = {"autoencoder": self.codec.model, "unet": self.unet}
        parts = {"features": (self.backbone.state_dict(), {"name": self.backbone.name}),
                 "conditioning": ({"reference": self.conditioning.reference}, {}),
                 "calibration": (vars(self.calibration) | {"images": self.calibration_images}, {})}
        settings = {"autoencoder": self.codec.kind, "preset": self.preset, "config": self.config.to_dict(),
                    "losses": self.losses,
                    "threshold": asdict(self.guarantee) if self.guarantee else None, "white": self.white}
        return checkpoint.save(Path(folder), models, parts, settings, card)

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "D3AD":
        """Read what `save` wrote; nothing in the folder is run, and nothing is fetched.

        Raises FileNotFoundError naming what is missing, ValueError naming a file that is damaged or doesn't fit the
        others.
        """
        pick_device(device)  # a device that isn't there is no fault of the folder's
        folder = Path(folder)
        settings = checkpoint.read_settings(folder)
        with checkpoint.naming(folder / "config.json"):
            self = cls(Config.from_dict(checkpoint.known_settings(settings["config"])).replace(device=device))
            self.losses, self.preset = settings["losses"], settings.get("preset", self.preset)
            self.white = settings.get("white")
            check_white(self.white)
            self.guarantee = Threshold.stored(settings["threshold"]) if settings.get("threshold") else None
            self._load_parts(folder, settings["autoencoder"])
        return self

    def _load_parts(self, folder: Path, autoencoder: str) -> None:
        """Networks from the detector's own checked settings, never from a second config.json beside the weights."""
        config = self.config
        if not (folder / "autoencoder").is_dir():  # else its name would be looked up on the hub
            raise FileNotFoundError(f"{folder / 'autoencoder'} is missing: the saved detector is incomplete")
        codec = load_autoencoder(autoencoder, str(folder / "autoencoder")).check_channels(config.latent_channels)
        self.codec = codec.to(self.device).eval()
        self.unet = checkpoint.load_network(folder / "unet" / checkpoint.WEIGHTS,
                                            lambda: training.make_unet(config)).to(self.device)
        self.backbone = checkpoint.load_network(folder / "features" / "model.safetensors",
                                                lambda: FeatureExtractor(config.backbone, "none")).to(self.device)
        self.networks = self.make_networks(self)
        file = folder / "conditioning" / "model.safetensors"
        with checkpoint.naming(file):
            self.conditioning = DynamicConditioning.of(config).fit(
                checkpoint.read_tensors(file, "reference")["reference"])
        # detectors from before `feature_distance` have no differences
        names = [field.name for field in fields(Calibration)
                 if field.default_factory is MISSING or config.feature_distance == "mahalanobis"]
        stored = checkpoint.read_tensors(folder / "calibration" / "model.safetensors", "images", *names)
        levels, size = len(stored["levels"]), config.image_size
        for name in ("images", "latent_mean", "latent_std", "feature_mean", "feature_std"):
            shape = tuple(stored[name].shape)
            fits = shape[1:] == (3, size, size) if name == "images" else shape in ((levels, 1, 1), (levels, size, size))
            if not fits:
                raise ValueError(f"image_size is {size}, but the calibration of {levels} levels has {name} of {shape}")
        self.calibration_images = stored["images"]
        if self.conditioning.reference.shape[1] != self.vectors(stored["images"][:1]).shape[1]:
            raise ValueError(f"{file} holds features of another network or image size")
        self.calibration = Calibration(**{name: stored[name] for name in names})
        self._usual()  # they may be of other features


def _check_changes(changes: dict, *also: str) -> None:
    """Raise ValueError for changes to settings that only a new training could change; also: further ones that may."""
    free = (*Config.names(PREDICTION), "predict_batch", *also)
    if fixed := sorted(set(changes) - set(free)):
        raise ValueError(f"{', '.join(fixed)} can't change in a trained detector; what can: {', '.join(sorted(free))}")
