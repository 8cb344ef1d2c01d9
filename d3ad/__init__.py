"""D3AD: Dynamic Denoising Diffusion Probabilistic Model for Anomaly Detection, a companion to the paper."""
from d3ad.config import Config
from d3ad.detector import D3AD, Prediction

__version__ = "0.1.0"
__all__ = ["D3AD", "Config", "Prediction", "__version__"]
