"""Images that the backend crops, mirrors and normalises: the same batches as on the host, however they travel."""

import sys

import cupy_stand_in
import numpy as np
import pytest

from minitorch_alex import backends
from minitorch_alex.data import Augmentation, ColourNoise, DeviceLoader, Loader, Preprocessing, RandomCrop
from minitorch_alex.data.augmentation import CentreCrop

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (23, 3, 12, 14), dtype="uint8")
LABELS = rng.integers(0, 5, 23)
COLOUR = ColourNoise.of(np.array([[9.0, 2, 1], [2, 7, 0], [1, 0, 5]]))
STD = np.array([3.0, 0.7, 55.0])
WAYS = {
    "shifted": (Augmentation(2, flip=True, fill=77), Preprocessing(np.array([100.0, 7, 9]), STD), None),
    "as they are": (Augmentation(), Preprocessing(rng.uniform(0, 255, (3, 12, 14)), STD), None),
    "crops": (RandomCrop(9), Preprocessing(rng.uniform(0, 255, (3, 9, 9)), np.ones(3)), COLOUR),
    "centres": (CentreCrop(9), Preprocessing(np.array([100.0, 7, 9]), STD), COLOUR),
}


class OnDisk:
    """Images of which only the wanted ones are read."""

    shape = IMAGES.shape

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, which):
        return IMAGES[which]


@pytest.mark.parametrize("images", [IMAGES, OnDisk()], ids=["fit on the device", "travel batch by batch"])
@pytest.mark.parametrize("way", WAYS)
def test_the_same_batches_as_on_the_host(way, images, backend):
    augmentation, preprocessing, colour = WAYS[way]
    arguments = images, LABELS, 5, preprocessing, augmentation, 3
    host = Loader(*arguments, colour=colour)
    device = DeviceLoader(backend, *arguments, workers=2, colour=colour)
    assert (device.on_device is not None) == (backend.has_own_memory and images is IMAGES)
    for epoch, start in ((0, 0), (1, 3)):
        found, expected = list(device.epoch(epoch, start)), list(host.epoch(epoch, start))
        assert [len(x) for x, _ in found] == [5, 5, 5, 5, 3][start:]
        for (x, labels), (y, truth) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(backend.to_numpy(x), y)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(labels, truth)


def test_images_that_do_not_fit_travel_batch_by_batch(stand_in, monkeypatch):
    backend = backends.current()
    backend.give_back()  # what is kept in stock is free as well
    arguments = backend, IMAGES, LABELS, 5, WAYS["shifted"][1], Augmentation(), 0
    monkeypatch.setattr(stand_in.cuda.Device, "mem_info", (2 * IMAGES.nbytes - 1, 1 << 30))
    assert DeviceLoader(*arguments).on_device is None
    monkeypatch.setattr(stand_in.cuda.Device, "mem_info", (2 * IMAGES.nbytes, 1 << 30))
    assert DeviceLoader(*arguments).on_device is not None


@pytest.mark.parametrize("eager", [False, True], ids=["copies come late", "copies come early"])
def test_a_batch_is_whole_when_it_is_used_and_until_it_has_been(eager, stand_in, monkeypatch):
    """What travels beside the computation must neither be read too early nor overwritten too early."""
    monkeypatch.setattr(cupy_stand_in.Stream, "eager", eager)
    sizes = [4, 4, 6, 6, 2, 6, 1]  # the buffers grow on the way
    batches = [(np.full((n, 3), i, "float32"), np.full(n, -i, "int32")) for i, n in enumerate(sizes)]

    def one_array_for_all():
        reused = np.empty((6, 3), "float32")  # as a caller may who knows that sending copies
        for images, numbers in batches:
            reused[: len(images)] = images
            yield reused[: len(images)], numbers

    seen = 0
    for i, (images, numbers) in enumerate(backends.current().sent_ahead(one_array_for_all())):
        np.testing.assert_array_equal(images.get(), batches[i][0])
        np.testing.assert_array_equal(numbers.get(), batches[i][1])
        seen += 1
    assert seen == len(sizes)
    assert list(backends.current().sent_ahead([])) == []


def test_buffers_are_made_once_and_for_what_they_are_to_hold(stand_in, monkeypatch):
    made, original = [], cupy_stand_in.cupyx.empty_pinned
    monkeypatch.setattr(cupy_stand_in.cupyx, "empty_pinned", lambda *a: (made.append(a), original(*a))[1])
    batches = [(np.full((4, 3), i, "float32"), np.full(4, i)) for i in range(6)]
    for i, (images, numbers) in enumerate(backends.current().sent_ahead(batches)):
        assert images.get().tolist() == batches[i][0].tolist()
        assert numbers.get().tolist() == batches[i][1].tolist()
    assert len(made) == 2 * 2, "two arrays in each of two buffers"
    of_other_kinds = [(np.full(4, 2.5, dtype),) for dtype in ("float32", "float64", "float64", "float32", "int32")]
    for i, (array,) in enumerate(backends.current().sent_ahead(of_other_kinds)):
        assert array.dtype == of_other_kinds[i][0].dtype
        assert array.get().tolist() == of_other_kinds[i][0].tolist()


def test_memory_in_stock_counts_as_free(stand_in, monkeypatch):
    monkeypatch.setattr(stand_in.cuda.Device, "mem_info", (0, 1 << 30))
    backend = backends.current()
    backend.give_back()
    before = backend.free_bytes()
    backend.xp.empty(1000, "uint8")  # used, and given back at once
    assert backend.free_bytes() == before + 1000


def test_pinned_memory_is_not_overwritten_before_the_gpu_has_read_it(stand_in, monkeypatch):
    """The host may be far ahead of the GPU, so it must wait for the copy; on the stand-in it never is."""
    waited_for = []
    monkeypatch.setattr(cupy_stand_in.Event, "synchronize", lambda self: waited_for.append(self))
    for _ in backends.current().sent_ahead([(np.zeros(3),)] * 5):
        pass
    assert len(waited_for) == 5
    assert waited_for[0] is waited_for[2] is waited_for[4] is not waited_for[1]


def test_who_stops_early_leaves_no_copy_behind(stand_in, monkeypatch):
    """It would write into memory that has been given to somebody else by then."""
    streams = []
    make = stand_in.cuda.Stream
    monkeypatch.setattr(stand_in.cuda, "Stream", lambda **settings: (streams.append(make(**settings)), streams[-1])[1])
    batches = backends.current().sent_ahead([(np.zeros(3),)] * 5)
    next(batches)
    batches.close()
    assert streams[0]._done == len(streams[0]._waiting) == 2


def test_large_arrays_go_in_pieces(stand_in, monkeypatch):
    pieces, original = [], cupy_stand_in.asarray
    monkeypatch.setattr(cupy_stand_in, "asarray", lambda a: (pieces.append(a.nbytes), original(a))[1])
    monkeypatch.setattr(sys.modules[cupy_stand_in.TRANSFER], "PIECE", 3 * IMAGES[0].nbytes + 1)
    sent = backends.current().sent_in_pieces(IMAGES)
    np.testing.assert_array_equal(sent.get(), IMAGES)
    assert max(pieces) == 3 * IMAGES[0].nbytes
    assert len(pieces) == 8
