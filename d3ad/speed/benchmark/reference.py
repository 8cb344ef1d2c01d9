"""The reference implementation, in the order of work of the authors' code: what numbers and times are held against.

The whole batch at a time, but for the sampler, whose plain loop takes images of one T-hat together; features twice,
once for Algorithm 2 and once for the map; neighbours by scikit-learn; a list of every step's latent; the usual memory
order of PyTorch.
"""
import copy
import itertools

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from d3ad import diffusion, maps
from d3ad.conditioning import one_brightness, pool_features, step_of_bin
from d3ad.config import Config
from d3ad.detector import D3AD


class Reference:
    """A detector's networks, called in the authors' order."""

    def __init__(self, detector: D3AD):
        self.config, self.dic, self.abar = detector.config, detector.conditioning, detector.alpha_bar
        self.feature_map = detector.feature_map
        parts = (detector.codec, detector.unet, detector.backbone)
        self.codec, self.unet, self.backbone = (usual_order(copy.deepcopy(part)) for part in parts)
        self.neighbours = NearestNeighbors(n_neighbors=self.config.k,
                                           metric="manhattan").fit(self.dic.reference.numpy())

    @torch.no_grad()
    def predict(self, x: Tensor) -> dict[str, Tensor]:
        """t_hat (N,); maps (N, H, W): latent and feature before normalisation, anomaly_map under the range of all."""
        config, x = self.config, x.to(self.backbone.mean.device)
        vectors = pool_features(self.backbone(one_brightness(x) if config.dic_normalise
                                              else x)[config.dic_block]).cpu().numpy()
        distance = self.neighbours.kneighbors(vectors)[0].mean(1)
        bins = np.digitize(distance, self.dic.edges.numpy(), right=True).clip(max=config.num_bins)
        t_hat = step_of_bin(torch.from_numpy(bins), config.num_bins, config.t_max, config.min_bin, config.round_to)
        z0, _ = self.codec.encode(x)
        z_hat = torch.empty_like(z0)
        for level in t_hat.unique().tolist():
            z_hat[t_hat == level] = self._sampled(z0[t_hat == level], level)
        x_hat = self.codec.decode(z_hat)
        features, features_hat = self.backbone(x), self.backbone(x_hat)
        feature = self.feature_map(features, features_hat, x.shape[-2:]).cpu()
        latent = maps.latent_map(z0, z_hat, x.shape[-2:]).cpu()
        return dict(t_hat=t_hat, latent=latent, feature=feature, anomaly_map=fused(latent, feature, config))

    def _sampled(self, z0: Tensor, t_hat: int) -> Tensor:
        """Algorithm 1 for images (B, C, h, w) of one T-hat."""
        config = self.config
        visited = diffusion.timesteps(torch.tensor([t_hat]), config.num_steps, config.spacing).flatten().tolist()
        latents = [diffusion.perturb(z0, t_hat, self.abar)]
        for t, t_next in itertools.pairwise(visited):
            eps = self.unet(latents[-1], torch.full((len(z0),), t - 1, device=z0.device)).sample
            eps = diffusion.guided_eps(eps, latents[-1], z0, self.abar[t], config.guidance)
            latents.append(diffusion.ddim_step(latents[-1], eps, self.abar[t], self.abar[t_next]))
        return latents[-1]


def fused(latent: Tensor, feature: Tensor, config: Config) -> Tensor:
    """Eq. 9 with the range of all maps given, one map after the other."""
    latent, feature = maps.min_max(latent), maps.min_max(feature)
    sigma = config.sigma_pixels
    return torch.cat([maps.anomaly_map(latent[i:i + 1], feature[i:i + 1], config.weight, sigma)
                      for i in range(len(latent))])


def usual_order(network: torch.nn.Module) -> torch.nn.Module:
    """The network as it is without this repository: weights in PyTorch's memory order, no activation that overwrites
    its input.
    """
    for layer in network.modules():
        if isinstance(layer, torch.nn.SiLU):
            layer.inplace = False
    return network.to(memory_format=torch.contiguous_format)
