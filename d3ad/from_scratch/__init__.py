"""Autoencoder and features as a config asks for them: loaded, or trained from scratch where they have no weights."""
from d3ad.from_scratch.autoencoder import autoencoder_loss, fit_codec, perceptual_distance, train_autoencoder
from d3ad.from_scratch.features import corrupt, fit_backbone, pretrain

__all__ = ["autoencoder_loss", "corrupt", "fit_backbone", "fit_codec", "perceptual_distance", "pretrain",
           "train_autoencoder"]
