"""Config: every setting of the method, one field each; profiles are TOML files beside it.

The defaults are the paper's (Section 5, Appendix A.1) or, where the paper is silent, the authors' code's; a profile
names what it changes, and why.  It may rest on another, its `base`, and then names what differs from that.  Its table
[study] holds what only a study needs (d3ad/study/settings.py).
"""
import re
from dataclasses import dataclass

from d3ad.infra.profiles import read_profile
from d3ad.infra.settings import MACHINE, Settings, setting

# What has to be made anew where a setting changes.  Each stage rests on those before it.
DATA, AUTOENCODER, FEATURES, DIFFUSION, ADAPTATION = "data", "autoencoder", "features", "diffusion", "adaptation"
PREDICTION = "prediction"  # nothing is trained: `D3AD.variant` changes it


@dataclass(frozen=True)
class Config(Settings):
    """All settings of the method: each with what a change asks for, and the values that are allowed."""

    name: str = setting("custom", MACHINE)      # of the profile
    device: str = setting("auto", MACHINE, ("auto", "cpu", "cuda", "mps"))  # "auto": cuda, then mps, then cpu
    predict_batch: int = setting(16, MACHINE, (1, 4096))
    seed: int = setting(0, DATA, (0, 2 ** 31 - 1))
    image_size: int = setting(256, DATA, (16, 4096))  # pixels; images are resized to a square
    batch_size: int = setting(30, DATA, (1, 4096))    # of every training
    # share of the normal images that calibrate and are not trained on; 0: those that were trained on, as in the paper
    calibration_share: float = setting(0.0, DATA, (0.0, 0.5))
    # weights of the diffusion model kept on the way, after equal parts of its training, beside its state
    checkpoints: int = setting(0, MACHINE, (0, 100))
    # parts in which the diffusion model sees a batch, for less memory; the gradients are the same but for rounding
    accumulate: int = setting(1, MACHINE, (1, 4096))
    # trainings from scratch see random crops of this size; 0: whole images
    crop_size: int = setting(0, DATA, (0, 4096))

    # of the tiny autoencoder for the preset "fast": a name on the hub, or a folder
    tiny_weights: str = setting("madebyollin/taesd", MACHINE)

    # autoencoder E, D (Section 3)
    # "kl": the paper's; "tiny": the same latents; "taef2": other latents; "small", "smooth": trained here
    autoencoder: str = setting("kl", AUTOENCODER, ("kl", "tiny", "taef2", "small", "smooth"))
    # on the hub, a folder, or "none": trained here
    autoencoder_weights: str = setting("stabilityai/sd-vae-ft-mse", AUTOENCODER)
    autoencoder_steps: int = setting(0, AUTOENCODER, (0, 10_000_000))  # where it is trained
    # weight of pretrained phi's distance in its loss
    autoencoder_perceptual: float = setting(0.0, AUTOENCODER, (0.0, 100.0))
    latent_channels: int = setting(4, AUTOENCODER, (1, 64))
    # of "small"; 0: its latent channels start as wide as principal components are, 1: all equally wide
    latent_whitening: float = setting(0.0, AUTOENCODER, (0.0, 1.0))

    # features phi (Section 4.3)
    backbone: str = setting("resnet34.tv_in1k", FEATURES)
    # "hub", "pip", a folder or file, or "none": trained on normal images
    backbone_weights: str = setting("hub", FEATURES)
    pretrain_steps: int = setting(0, FEATURES, (0, 10_000_000))  # of that training
    adapt_blocks: tuple[int, ...] = setting((1, 2, 3), FEATURES, (1, 3))  # 1..J of Eq. 10

    # diffusion (Eqs. 1-6)
    beta_start: float = setting(0.0015, DIFFUSION, (1e-9, 0.999))
    beta_end: float = setting(0.0195, DIFFUSION, (1e-9, 0.999))
    num_timesteps: int = setting(1000, DIFFUSION, (1, 10_000))  # T
    # t is drawn from 1..train_t_max; Algorithm 1 only visits 1..t_max
    train_t_max: int = setting(1000, DIFFUSION, (1, 10_000))
    # copies of each training image, moved by a few pixels, that it learns from too; not in the paper
    train_moved: int = setting(0, DIFFUSION, (0, 1000))
    train_light: float = setting(0.0, DIFFUSION, (0.0, 0.9))  # they are darker or brighter by up to this share
    unet_channels: tuple[int, ...] = setting((192, 384, 384, 768, 768), DIFFUSION, (16, 8192))
    unet_layers: int = setting(2, DIFFUSION, (1, 16))
    # levels with self-attention, 0 the finest
    unet_attention: tuple[int, ...] = setting((0, 1, 2, 3), DIFFUSION, (0, 15))
    unet_heads: int = setting(8, DIFFUSION, (1, 256))  # of each attention
    unet_groups: int = setting(32, DIFFUSION, (1, 256))  # of its normalisation
    # how it halves and doubles: by a residual block (authors' code), or by one convolution
    unet_resampling: str = setting("resnet", DIFFUSION, ("resnet", "conv"))
    train_epochs: int = setting(300, DIFFUSION, (1, 100_000))
    train_steps: int = setting(0, DIFFUSION, (0, 100_000_000))  # 0: train_epochs decide
    learning_rate: float = setting(1.0e-4, DIFFUSION, (1e-8, 1.0))
    learning_schedule: str = setting("constant", DIFFUSION, ("constant", "cosine"))  # "cosine" for short trainings
    weight_decay: float = setting(0.01, DIFFUSION, (0.0, 1.0))
    # of multiplications; weights stay float32
    train_precision: str = setting("float32", DIFFUSION, ("float32", "bfloat16"))
    ema_decay: float = setting(0.0, DIFFUSION, (0.0, 0.99999))  # 0: the last weights are used, as in the authors' code

    # domain adaptation (Section 4.3, Eq. 10)
    adapt_epochs: int = setting(1, ADAPTATION, (0, 1000))  # gamma
    adapt_loss: str = setting("location", ADAPTATION, ("location", "flattened"))  # Eq. 10, or the authors' code
    adapt_learning_rate: float = setting(1.0e-4, ADAPTATION, (1e-8, 1.0))
    # statistics: each batch's (authors' code), or those used later
    adapt_batch_norm: str = setting("batch", ADAPTATION, ("batch", "running"))
    dic_block: int = setting(2, ADAPTATION, (1, 3))        # j of Algorithm 2
    # it sees images of one brightness and contrast; not in the paper
    dic_normalise: bool = setting(False, ADAPTATION)

    # dynamic implicit conditioning (Algorithm 2)
    dynamic: bool = setting(True, PREDICTION)              # False: every image gets t_max
    k: int = setting(20, PREDICTION, (1, 10_000))
    num_bins: int = setting(10, PREDICTION, (1, 1000))     # |B|
    t_max: int = setting(80, PREDICTION, (1, 10_000))      # T_max
    min_bin: int = setting(2, PREDICTION, (0, 1000))
    round_to: int = setting(10, PREDICTION, (1, 1000))
    # a training image counts itself among its neighbours (authors' code)
    include_self: bool = setting(True, PREDICTION)

    # reconstruction (Algorithm 1)
    num_steps: int = setting(10, PREDICTION, (1, 1000))    # S
    spacing: str = setting("trailing", PREDICTION, ("trailing", "leading"))
    guidance: float = setting(0.0, PREDICTION, (-100.0, 100.0))  # eta
    omega: float = setting(0.0, PREDICTION, (0.0, 1.0))    # share of noise, Eq. 11
    # authors' code: fixed steps and the adaptation drop Eq. 7's direction term in the first step
    second_sampler: bool = setting(False, PREDICTION)
    # at test: a sample of the posterior (authors' code) or its mean
    latent_sample: bool = setting(False, PREDICTION)

    # anomaly map (Eq. 9)
    map_blocks: tuple[int, ...] = setting((2, 3), PREDICTION, (1, 3))  # J of f_map
    # "mahalanobis": in units of how normal images' features differ from their reconstructions'; not in the paper
    feature_distance: str = setting("cosine", PREDICTION, ("cosine", "mahalanobis"))
    weight: float = setting(0.85, PREDICTION, (0.0, 1.0))  # lambda
    # of the Gaussian, in pixels at 256 x 256; scaled with the image
    sigma: float = setting(4.0, PREDICTION, (0.0, 60.0))
    # not in the paper: maps that are compared with what normal images give there, per T-hat
    standardise: tuple[str, ...] = setting((), PREDICTION, ("latent", "feature"))
    # in tables; D3AD.predict takes training ranges unless told
    normalisation: str = setting("test", PREDICTION, ("test", "train"))
    # normal images that set ranges and threshold, at most
    calibration_images: int = setting(100, PREDICTION, (1, 100_000))
    # how many values of T-hat get statistics of their own, the others interpolated; 0: all
    calibration_levels: int = setting(0, PREDICTION, (0, 100))
    threshold_quantile: float = setting(0.99, PREDICTION, (0.5, 1.0))  # of the calibration images' scores

    def _check_together(self) -> None:
        """Raise ValueError for fields that are fine alone and impossible together."""
        if self.t_max > self.num_timesteps or self.train_t_max > self.num_timesteps:
            raise ValueError(f"t_max ({self.t_max}) and train_t_max ({self.train_t_max}) can't exceed num_timesteps "
                             f"({self.num_timesteps})")
        if self.t_max > self.train_t_max:
            raise ValueError(f"t_max ({self.t_max}) exceeds train_t_max ({self.train_t_max}), where learning ends")
        if self.dynamic and self.t_max % self.round_to:  # or T-hat could be 0 everywhere, or exceed t_max
            raise ValueError(f"t_max must be a multiple of round_to where steps are dynamic; got {self.t_max} and "
                             f"{self.round_to}")
        if self.train_light and not self.train_moved:
            raise ValueError("train_light changes the light of moved copies: set train_moved above 0, too")
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start ({self.beta_start}) exceeds beta_end ({self.beta_end})")
        if self.min_bin > self.num_bins:
            raise ValueError(f"min_bin ({self.min_bin}) exceeds num_bins ({self.num_bins})")
        if self.image_size % 8 or self.crop_size % 8:
            raise ValueError(f"image_size ({self.image_size}) and crop_size ({self.crop_size}) must be multiples of 8, "
                             "the autoencoder's factor")
        if self.crop_size > self.image_size:
            raise ValueError(f"crop_size ({self.crop_size}) exceeds image_size ({self.image_size})")
        if not self.unet_channels or any(width % self.unet_groups for width in self.unet_channels):
            raise ValueError(f"unet_channels ({list(self.unet_channels)}) must be multiples of {self.unet_groups}, "
                             "the groups of its normalisation (unet_groups)")
        if self.image_size // 8 % 2 ** (len(self.unet_channels) - 1):
            raise ValueError(f"image_size ({self.image_size}) can't be halved often enough: 8 (autoencoder) times "
                             f"{2 ** (len(self.unet_channels) - 1)} (levels of unet_channels) must divide it")
        if any(level >= len(self.unet_channels) for level in self.unet_attention):
            raise ValueError(f"unet_attention ({list(self.unet_attention)}) names a level that unet_channels lacks")
        attending = {*self.unet_attention, len(self.unet_channels) - 1}  # the middle has the last level's width
        if any(self.unet_channels[level] % self.unet_heads for level in attending):
            raise ValueError(f"unet_heads ({self.unet_heads}) must divide the unet_channels of each level with "
                             "attention, and of the last")
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name ({self.name!r}) must be fit for a folder: letters, digits, points, dashes and "
                             "underscores")
        if self.autoencoder_perceptual and self.backbone_weights == "none":
            raise ValueError("autoencoder_perceptual needs features that know something: set backbone_weights, or "
                             "leave it 0")
        if self.latent_whitening and self.autoencoder != "small":
            raise ValueError(f'latent_whitening is of autoencoder "small", not of "{self.autoencoder}": leave it 0')
        for name, blocks in (("map_blocks", self.map_blocks), ("adapt_blocks", self.adapt_blocks)):
            if not blocks or len(set(blocks)) < len(blocks):
                raise ValueError(f"{name} must name at least one block, and each once; got {list(blocks)}")

    @property
    def sigma_pixels(self) -> float:
        """`sigma`, which is given at 256 pixels, in pixels of the config's own size."""
        return self.sigma * self.image_size / 256

    def hashed(self) -> dict:
        """As `to_dict`; `standardise` counts as true or false, which it was, where it names both kinds of maps or none:
        results of such settings are still of them.  Settings that were added later are left out where they have the
        value that held before.
        """
        standardise = self.standardise if len(self.standardise) == 1 else bool(self.standardise)
        values = self.to_dict() | dict(standardise=standardise)
        younger = dict(feature_distance="cosine", latent_whitening=0.0, train_light=0.0)
        return {name: value for name, value in values.items() if younger.get(name) != value}

    @classmethod
    def profile(cls, name: str, /, **changes) -> "Config":
        """The named profile, with `changes` on top.  Raises ValueError for an unknown profile or key, or
        a value that is not allowed.
        """
        values = read_profile(name)
        values.pop("study", None)
        return cls.from_dict({"name": name, **values, **changes})
