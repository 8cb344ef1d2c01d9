"""What a prediction costs: counted for what it is, on a method that waits and holds memory."""
import time

import torch

from d3ad.speed import timing


def test_seconds_are_per_image_and_memory_is_what_the_method_adds():
    def build():
        weights = torch.ones(25_000_000)  # 100 MB of its own

        def predict(images):
            time.sleep(0.02)
            work = torch.ones(12_500_000) + weights[:12_500_000]  # 50 MB, and 50 more for the sum
            time.sleep(0.02)
            return work.sum()

        return predict

    found = timing.timed(build, torch.zeros(4, 3, 8, 8))
    assert len(found["seconds"]) == timing.ROUNDS and all(second >= 0.01 for second in found["seconds"])
    assert 130 < found["megabytes"] < 300


def test_the_next_method_does_not_pay_for_the_last_one():
    def build_heavy():
        kept = torch.ones(50_000_000)
        return lambda images: kept.sum()

    heavy = timing.timed(build_heavy, torch.zeros(1, 1))
    light = timing.timed(lambda: (lambda images: images.sum()), torch.zeros(1, 1))
    assert heavy["megabytes"] > 150 and light["megabytes"] < 50
