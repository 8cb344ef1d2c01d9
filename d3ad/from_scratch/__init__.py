"""Networks trained from scratch, where there are no pretrained weights: a small autoencoder, and the features."""
from d3ad.from_scratch.autoencoder import SmallAutoencoder, autoencoder_loss, perceptual_distance, train_autoencoder
from d3ad.from_scratch.features import corrupt, pretrain

__all__ = ["SmallAutoencoder", "autoencoder_loss", "corrupt", "perceptual_distance", "pretrain", "train_autoencoder"]
