"""diffusers' autoencoders with the weights that somebody else trained: from its hub, or from a folder."""
from pathlib import Path

import torch.nn as nn

from d3ad.infra.checkpoint import check_network


def load(network: type, kind: str, weights: str, hub: str) -> nn.Module:
    """A network with all its weights, none of them NaN.

    network: its class.  weights: a folder, or a name on the hub.  kind, hub: for messages, what it is called and where
    on the hub its weights lie.
    Raises FileNotFoundError, saying which file to put where, when the weights can't be had; ValueError for a folder
    that holds another network.
    """
    is_local = Path(weights).is_dir()
    try:  # safetensors only: a pickle would run what its maker likes
        if is_local:
            check_network(Path(weights), network)
        model, report = network.from_pretrained(weights, low_cpu_mem_usage=False, use_safetensors=True,
                                                local_files_only=is_local, output_loading_info=True)
        if report["missing_keys"] or report["mismatched_keys"]:  # diffusers only warns, and leaves them at random
            raise ValueError("its weights lack "
                             f"{', '.join(sorted(map(str, report['missing_keys'] or report['mismatched_keys']))[:3])}")
        if not all(value.isfinite().all() for value in model.state_dict().values()):
            raise ValueError("its weights are NaN or infinite")
        return model
    except (OSError, RuntimeError, ValueError) as error:
        if is_local and not isinstance(error, OSError):
            raise ValueError(f"{weights} holds no autoencoder of kind {kind!r}: "
                             f"{' '.join(str(error).split())[:300]}") from None
        where = Path(weights) if is_local else "a folder"
        raise FileNotFoundError(
            f'the weights of autoencoder "{kind}" can\'t be had from {weights} ({type(error).__name__}). Without a '
            f"network, put config.json and diffusion_pytorch_model.safetensors of {hub} into "
            f"{where} and set autoencoder_weights to it") from error
