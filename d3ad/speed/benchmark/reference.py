"""The reference implementation, in the order of work of the authors' code: what numbers and times are held against.

One image after the other; features twice, once for Algorithm 2 and once for the map; neighbours by scikit-learn; a list
of every step's latent; the usual memory order of PyTorch.
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
        parts = (detector.codec, detector.unet, detector.backbone)
        self.codec, self.unet, self.backbone = (usual_order(copy.deepcopy(part)) for part in parts)
        self.neighbours = NearestNeighbors(n_neighbors=self.config.k,
                                           metric="manhattan").fit(self.dic.reference.numpy())

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """t_hat (N,); maps (N, H, W): latent and feature before normalisation, anomaly_map under the range of all."""
        predictions = [self._predict_one(image.unsqueeze(0).to(self.backbone.mean.device)) for image in images]
        joined = {key: torch.cat([one[key] for one in predictions]) for key in predictions[0]}
        return joined | dict(anomaly_map=fused(joined["latent"], joined["feature"], self.config))

    @torch.no_grad()
    def _predict_one(self, x: Tensor) -> dict[str, Tensor]:
        config = self.config
        vector = pool_features(self.backbone(one_brightness(x) if config.dic_normalise
                                             else x)[config.dic_block]).cpu().numpy()
        distance = self.neighbours.kneighbors(vector)[0].mean(1)
        bins = np.digitize(distance, self.dic.edges.numpy(), right=True).clip(max=config.num_bins)
        t_hat = step_of_bin(torch.from_numpy(bins), config.num_bins, config.t_max, config.min_bin, config.round_to)
        z0, _ = self.codec.encode(x)
        visited = diffusion.timesteps(t_hat, config.num_steps, config.spacing).flatten().tolist()
        latents = [diffusion.perturb(z0, int(t_hat), self.abar)]
        for t, t_next in itertools.pairwise(visited):
            eps = self.unet(latents[-1], torch.tensor([t - 1], device=x.device)).sample
            eps = diffusion.guided_eps(eps, latents[-1], z0, self.abar[t], config.guidance)
            latents.append(diffusion.ddim_step(latents[-1], eps, self.abar[t], self.abar[t_next]))
        x_hat = self.codec.decode(latents[-1])
        features, features_hat = self.backbone(x), self.backbone(x_hat)
        feature = maps.feature_map([features[j] for j in config.map_blocks],
                                   [features_hat[j] for j in config.map_blocks], x.shape[-2:])
        return dict(t_hat=t_hat, latent=maps.latent_map(z0, latents[-1], x.shape[-2:]).cpu(), feature=feature.cpu())


def fused(latent: Tensor, feature: Tensor, config: Config) -> Tensor:
    """Eq. 9 with the range of all maps given, one map after the other."""
    latent, feature = maps.min_max(latent), maps.min_max(feature)
    sigma = config.sigma * config.image_size / 256
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
