"""A tiny configuration and a detector trained with it, shared by the tests."""
import pytest
import torch

from d3ad import D3AD, Config

pytest.register_assert_rewrite("tiny_datasets")
torch.set_num_threads(1)  # the networks here are tiny: threads cost more than they give, above all on a busy machine
TINY = dict(image_size=64, autoencoder_steps=3, train_steps=3, pretrain_steps=1, backbone="resnet18",
            unet_channels=[16, 32], unet_attention=[1], k=3, calibration_images=4, batch_size=4, standardise=True)


@pytest.fixture(scope="session")
def tiny() -> Config:
    return Config.profile("smoke", **TINY)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Ten smooth pictures (10, 3, 64, 64) in [-1, 1]."""
    coarse = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, 64, mode="bilinear").clamp(-1, 1)


@pytest.fixture(scope="session")
def fitted(tiny, images) -> D3AD:
    return D3AD(tiny).fit(images)


def pytest_collection_modifyitems(items):
    """The notebooks first: two processes share the files of tests, and this one takes longest."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
