"""A tiny configuration and a detector trained with it, shared by the tests; and the long series, behind --long."""
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from d3ad import D3AD, Config

pytest.register_assert_rewrite("tiny_datasets")
torch.set_num_threads(1)  # the networks here are tiny: threads cost more than they give, above all on a busy machine
# Two processes share the tests, and a worker process of theirs imports torch for seconds: where a test doesn't ask for
# more, what could be spread over processes is computed in the test's own, or in the notebook's.
os.environ["LOKY_MAX_CPU_COUNT"] = "1"
TINY = dict(image_size=64, autoencoder_steps=3, train_steps=3, pretrain_steps=1, backbone="resnet18",
            unet_channels=[16, 32], unet_attention=[1], k=3, calibration_images=4, batch_size=4,
            standardise=["latent", "feature"])


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws without a generator of its own is the same each time."""
    torch.manual_seed(0)
    np.random.seed(0)


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


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long series too: random cases, kills, several processes")


def pytest_configure(config):
    """Random cases: the same few each time, or with --long many new ones."""
    common = dict(deadline=None, suppress_health_check=list(HealthCheck))
    settings.register_profile("short", max_examples=40, derandomize=True, database=None, **common)
    settings.register_profile("long", max_examples=600, **common)
    settings.load_profile("long" if config.getoption("--long") else "short")


@pytest.fixture(scope="session")
def long(request) -> bool:
    """Whether the long series were asked for."""
    return request.config.getoption("--long")


def pytest_collection_modifyitems(config, items):
    """The longest file first: two processes share the files.  What is marked long is left out without --long."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="a long one: ./run_tests.sh --long"))
