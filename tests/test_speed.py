"""What a prediction costs: counted for what it is, on a process whose memory is what the test says."""
import time
import weakref
from types import SimpleNamespace

import pytest
import torch

from d3ad.speed import timing

CPU = torch.device("cpu")


@pytest.fixture
def memory(monkeypatch):
    """A process that holds `memory.rss` bytes, and counts in `memory.looks` how often it was asked."""
    held = SimpleNamespace(rss=100_000_000, looks=0)

    def info():
        held.looks += 1
        return SimpleNamespace(rss=held.rss)

    monkeypatch.setattr(timing.psutil, "Process", lambda: SimpleNamespace(memory_info=info))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return held


def test_seconds_are_per_image_and_memory_is_what_the_method_adds(memory, monkeypatch):
    clock, calls = iter(range(0, 1000, 8)), []  # each look at the clock is 8 seconds after the last one

    def build():
        memory.rss += 100_000_000

        def predict(images):
            calls.append(len(images))
            memory.rss += 50_000_000
            seen = memory.looks
            while len(calls) > 1 and memory.looks < seen + 2:  # the first call is not watched
                time.sleep(0.001)
            memory.rss -= 50_000_000

        return predict

    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    found = timing.timed(build, torch.zeros(4, 3, 8, 8), CPU, first_images=2)
    assert found == dict(seconds=[2.0] * timing.ROUNDS, megabytes=150.0)
    assert calls == [2, *[4] * timing.ROUNDS]


def test_the_next_method_does_not_pay_for_the_last_one(memory):
    def build_heavy():
        def predict(images):
            pass

        memory.rss += 200_000_000
        weakref.finalize(predict, lambda: setattr(memory, "rss", memory.rss - 200_000_000))
        return predict

    heavy = timing.timed(build_heavy, torch.zeros(1, 1), CPU)
    light = timing.timed(lambda: torch.sum, torch.zeros(1, 1), CPU)
    assert (heavy["megabytes"], light["megabytes"]) == (200.0, 0.0)
