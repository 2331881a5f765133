"""Fixtures: each backend in turn, and the folder of extra data."""

import os
from pathlib import Path

import pytest

from minitorch_alex import backends, manual_seed


def pytest_collection_modifyitems(config, items):
    """What is marked slow waits until it is asked for."""
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture(params=["numpy", "numba", "cupy"])
def backend(request):
    """Each backend in turn, made current and seeded; one that cannot be used here is skipped with the reason."""
    reason = backends.why_not(request.param)
    if reason is not None:
        pytest.skip(reason)
    before = backends._current
    backends.use(request.param)
    manual_seed(0)
    yield backends.current()
    backends._current = before


@pytest.fixture(scope="session")
def extra_data():
    """The folder with the data that is too large for the repository."""
    if "MINITORCH_ALEX_DATA" not in os.environ:
        pytest.skip("set MINITORCH_ALEX_DATA to the folder with the extra data")
    return Path(os.environ["MINITORCH_ALEX_DATA"])
