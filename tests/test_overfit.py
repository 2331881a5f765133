"""The whole of AlexNet can learn: without dropout, 64 photographs by heart."""

import pytest

from benchmarks import overfit


@pytest.mark.slow
def test_alexnet_learns_64_photographs_by_heart(extra_data):
    images = overfit.photographs(extra_data / "imagenet-1k-sample")
    assert images.shape == (64, 3, 227, 227)
    seen = overfit.overfit(images, rate=0.001)  # why not the paper's 0.01: benchmarks/overfit.py
    assert overfit.learned(seen), seen[-1]
