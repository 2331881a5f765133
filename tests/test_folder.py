"""Photographs in folders, packed or plain, on their way into the network."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import photograph

from minitorch_alex import philox
from minitorch_alex.data import (
    Augmentation,
    ColourNoise,
    DataError,
    Loader,
    Preprocessing,
    RandomCrop,
    folder,
    load,
)
from minitorch_alex.data.augmentation import CentreCrop, centre_crop, ten_crops
from minitorch_alex.data.photographs import read_photograph
from minitorch_alex.data.statistics import PixelSums

RANDOM = np.random.default_rng(0)


# -- crops ------------------------------------------------------------------------------
def test_random_crops_are_what_was_drawn():
    images = RANDOM.integers(0, 256, (40, 3, 12, 14), "uint8")
    numbers = np.arange(100, 140)
    crops = RandomCrop(9)(images, 7, 3, numbers)
    words = philox.first_words(philox.key("crops", 7), 3, numbers)
    places = set()
    for crop, image, word in zip(crops, images, words, strict=True):
        top, left, mirror = (int(w >> np.uint64(32)) * n >> 32 for w, n in zip(word, (4, 6, 2), strict=False))
        expected = image[:, top : top + 9, left : left + 9]
        assert np.array_equal(crop, expected[:, :, ::-1] if mirror else expected)
        places.add((top, left, mirror))
    assert len(places) > 20
    assert crops.dtype == "uint8"


def test_every_place_is_reached_and_none_beyond():
    """From 256 to 224 pixels there are 33 places each way, 0 to 32."""
    images = np.zeros((4000, 1, 256, 1), "uint8")
    images[..., 0] = np.arange(256)
    tall = np.broadcast_to(images[:1], (4000, 1, 256, 256))  # rows tell their number
    tops = RandomCrop(224)(tall, 0, 0, np.arange(4000))[:, 0, 0, 0]
    assert sorted(set(tops.tolist())) == list(range(33))
    counts = np.bincount(tops, minlength=33)
    assert counts.min() > 70  # 121 expected


def test_a_crop_does_not_depend_on_its_batch():
    images = RANDOM.integers(0, 256, (8, 3, 10, 10), "uint8")
    together = RandomCrop(6)(images, 1, 2, np.arange(8))
    assert np.array_equal(RandomCrop(6)(images[5:6], 1, 2, np.array([5]))[0], together[5])
    assert not np.array_equal(RandomCrop(6)(images, 1, 3, np.arange(8)), together)
    assert not np.array_equal(RandomCrop(6)(images, 2, 2, np.arange(8)), together)


def test_without_flip_nothing_is_mirrored():
    images = np.broadcast_to(np.arange(10, dtype="uint8"), (50, 1, 10, 10))
    crops = RandomCrop(6, flip=False)(images, 0, 0, np.arange(50)).astype(int)
    assert (np.diff(crops, axis=3) == 1).all()


def test_the_ten_crops():
    image = np.arange(5 * 7).reshape(1, 5, 7)
    crops = ten_crops(image, 3)
    corners = [crop[0, 0, 0] for crop in crops[:5]]
    assert corners == [0, 4, 2 * 7, 2 * 7 + 4, 1 * 7 + 2]  # four corners, then the centre
    for crop, mirrored in zip(crops[:5], crops[5:], strict=True):
        assert crop.shape == (1, 3, 3)
        assert np.array_equal(mirrored, crop[..., ::-1])
    assert np.array_equal(centre_crop(image, 3), crops[4])
    assert centre_crop(np.zeros((256, 256)), 227).shape == (227, 227)


# -- colours ----------------------------------------------------------------------------
COVARIANCE = np.array([[5400.0, 4900, 4300], [4900, 5200, 5000], [4300, 5000, 5900]])  # about ImageNet's


@pytest.mark.parametrize(("reading", "divisor"), [("deviation", 1.1), ("eigenvalue", 1.0)])
def test_colour_noise_has_the_covariance_it_should(reading, divisor):
    noise = ColourNoise.of(COVARIANCE, reading)
    drawn = noise.draw(3, 1, np.arange(20_000))
    assert noise.divisor == divisor
    expected = 0.01 * COVARIANCE if reading == "deviation" else 0.01 * COVARIANCE @ COVARIANCE / 255**2
    np.testing.assert_allclose(np.cov(drawn.T), expected, rtol=0.04)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=4 * np.sqrt(np.diag(expected) / 20_000).max())
    grey_levels = drawn.std(axis=0)
    assert (grey_levels > 6.5).all() if reading == "deviation" else (grey_levels < 4.5).all()


def test_colour_noise_is_one_colour_an_image_whatever_the_batch():
    noise = ColourNoise.of(COVARIANCE)
    images = RANDOM.standard_normal((4, 3, 5, 6)).astype("float32")
    numbers = np.array([9, 2, 5, 7])
    noisy = noise(images, 1, 2, numbers)
    assert noisy.dtype == "float32"
    added = 1.1 * noisy - images
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :, :1, :1], added.shape), atol=1e-5)
    np.testing.assert_allclose(added[:, :, 0, 0], noise.draw(1, 2, numbers), rtol=1e-4, atol=1e-5)
    assert np.array_equal(noise(images[2:3], 1, 2, numbers[2:3])[0], noisy[2])
    assert not np.allclose(noise.draw(1, 3, numbers), noise.draw(1, 2, numbers))
    assert not np.allclose(noise.draw(2, 2, numbers), noise.draw(1, 2, numbers))


def test_colour_noise_follows_the_scale_of_the_pixels():
    std = np.array([50.0, 60, 70])
    numbers = np.arange(5)
    np.testing.assert_allclose(
        ColourNoise.of(COVARIANCE).divided(std).draw(0, 0, numbers) * std,
        ColourNoise.of(COVARIANCE).draw(0, 0, numbers),
    )


def test_components_point_the_same_way_whatever_lapack_says(monkeypatch):
    steps = ColourNoise.of(COVARIANCE).steps
    whole = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (whole(a)[0], -whole(a)[1]))
    np.testing.assert_allclose(ColourNoise.of(COVARIANCE).steps, steps)


def test_colour_noise_refuses():
    with pytest.raises(ValueError, match="'deviation' or 'eigenvalue'"):
        ColourNoise.of(COVARIANCE, "both")
    with pytest.raises(ValueError, match="3 channels"):
        ColourNoise.of(np.eye(1))


# -- statistics, preprocessing --------------------------------------------------------------
def test_sums_in_parts_are_the_sums():
    images = RANDOM.integers(0, 256, (11, 3, 6, 5), "uint8")
    sums = PixelSums.of(images)
    mean, covariance = sums.statistics()
    np.testing.assert_allclose(mean, images.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(images.swapaxes(0, 1).reshape(3, -1), bias=True))
    apart = PixelSums.zero((3, 6, 5))
    for part in np.split(images, [2, 3, 9]):
        apart.add(part)
    assert np.array_equal(apart.statistics().covariance, covariance)
    assert apart.count == 11


def test_the_mean_image_is_subtracted_and_its_centre_from_crops():
    images = RANDOM.integers(0, 256, (9, 3, 10, 10), "uint8")
    p = Preprocessing.centred(PixelSums.of(images).statistics(), 6)
    assert p.mean.shape == (3, 6, 6)
    np.testing.assert_allclose(p.mean, images.mean(axis=0)[:, 2:8, 2:8], rtol=1e-6)
    crop = images[:, :, :6, 4:]  # from a corner: still the centre of the mean
    np.testing.assert_allclose(p(crop), crop - p.mean, rtol=1e-6)
    assert p(crop).dtype == "float32"


@pytest.mark.parametrize("arguments", [([1, 2], [1]), ([1], [0]), ([[1, 2]], [1, 1]), ([1], [np.nan])])
def test_preprocessing_refuses(arguments):
    with pytest.raises(ValueError, match="Preprocessing"):
        Preprocessing(*arguments)


# -- folders --------------------------------------------------------------------------------
def test_plain_and_packed_give_the_same(plain, packed):
    one, other = load(str(plain), crop=224, held_out=0), load(str(packed), crop=224, held_out=0)
    assert one.classes == other.classes == ["cat", "dog"]
    assert one.image_shape == other.image_shape == (3, 224, 224)
    assert len(one.train_images) == len(other.train_images) == 11
    assert np.array_equal(one.train_images[np.arange(11)], other.train_images[np.arange(11)])
    assert np.array_equal(one.train_labels, other.train_labels)
    np.testing.assert_allclose(one.statistics.mean, other.statistics.mean, rtol=1e-6)
    np.testing.assert_allclose(one.statistics.covariance, other.statistics.covariance)
    assert [line.rpartition("/")[2] for line in one.left_out] == ["3.jpg: this is no picture of a known format"]
    assert other.left_out == []
    assert one.augmentation == RandomCrop(224)
    assert one.tested_on == "training images"


def test_images_are_the_photographs(plain):
    d = load(str(plain), held_out=0)
    assert np.array_equal(d.train_images[np.array([7])][0], read_photograph(plain / "dog" / "2.jpg"))
    assert d.train_labels.tolist() == [0] * 5 + [1] * 6


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_a_fifth_is_held_out(kind, request):
    place = request.getfixturevalue(kind)
    d = load(str(place))
    assert d.tested_on == "held out"
    assert sorted(d.test_labels.tolist()) == [0, 1]
    everything = load(str(place), held_out=0)
    known = {image.tobytes() for image in everything.train_images[np.arange(11)]}
    seen = [i.tobytes() for images in (d.train_images, d.test_images) for i in images[np.arange(len(images))]]
    assert len(seen) == len(set(seen))
    assert len(seen) >= 10
    assert set(seen) <= known
    np.testing.assert_allclose(
        d.statistics.mean, np.mean(d.train_images[np.arange(len(d.train_images))], axis=0), rtol=1e-6
    )  # of the training images only
    again = load(str(place))
    assert np.array_equal(again.test_images[0:2], d.test_images[0:2]), "the same ones always"


def test_train_and_val(plain, packed, tmp_path):
    shutil.copytree(plain, tmp_path / "both" / "train")
    shutil.copytree(packed, tmp_path / "both" / "val")  # one plain, one packed: why not
    d = load(str(tmp_path / "both"))
    assert (len(d.train_images), len(d.test_images)) == (11, 11)
    assert d.tested_on == "held out"
    assert d.name == "both"
    (tmp_path / "both" / "train" / "eel").mkdir()
    photograph(tmp_path / "both" / "train" / "eel" / "1.png", 3)
    with pytest.raises(DataError, match="'eel' is in only one of them"):
        load(str(tmp_path / "both"))


def test_classes_too_small_to_hold_any_out(tmp_path):
    for name in "ab":
        photograph(tmp_path / name / "1.png", 9)
    with pytest.raises(DataError, match="--held-out 0"):
        load(str(tmp_path))
    assert len(load(str(tmp_path), held_out=0).train_images) == 2


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="neither CIFAR-10 files here"):
        load(str(tmp_path))
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="neither CIFAR-10 files here"):
        load(str(tmp_path))
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="not one of 1 files can be read"):
        load(str(tmp_path), held_out=0)


def names_held_out(place: Path, held_out: float = 0.4) -> set[str]:
    """Which photographs are held out, told by their content."""
    d = load(str(place), held_out=held_out)
    known = {read_photograph(path).tobytes(): path.read_bytes() for path in place.rglob("*.jpg") if path.stem != "3"}
    return {known[image.tobytes()] for image in d.test_images[:]}


def test_no_image_changes_sides(plain, tmp_path):
    """Where others are renamed, come, or cannot be read, none that was trained on is held out now."""
    place = tmp_path / "animals"
    shutil.copytree(plain, place)
    before = names_held_out(place)
    (place / "cat" / "5.jpg").write_bytes(b"damaged now")
    (place / "dog" / "1.jpg").rename(place / "dog" / "0a.jpg")
    (place / "eel").mkdir()
    for i in range(3):
        photograph(place / "eel" / f"{i}.jpg", 100 + 20 * i)
    (place / "cat" / "5.jpg").unlink()
    renamed = (place / "dog" / "0a.jpg").read_bytes()
    eels = {path.read_bytes() for path in (place / "eel").glob("*.jpg")}
    assert len(names_held_out(place) - before - eels - {renamed}) <= 1, "a smaller class may hold out one less"


def test_the_fingerprint_knows_the_training_files(plain, packed, tmp_path):
    prints = {load(str(place), held_out=0.3).fingerprint for place in (plain, packed)}
    assert len(prints) == 1, "packed or not: the same files"
    shutil.copytree(plain, tmp_path / "animals")
    (tmp_path / "animals" / "dog" / "0.jpg").rename(tmp_path / "animals" / "dog" / "new.jpg")
    assert load(str(tmp_path / "animals"), held_out=0.3).fingerprint not in prints


def test_every_class_keeps_an_image_to_train_on(plain):
    d = load(str(plain), held_out=0.99)
    assert sorted(d.train_labels.tolist()) == [0, 1]
    assert len(d.test_labels) == 9


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a/1", "b/x"], "the class 'b' has no training image"),
        (["only/1", "only/2"], "two classes at least"),
        (["Train/1", "Val/1"], "small letters"),
    ],
)
def test_layouts_that_nobody_means(names, says, tmp_path):
    for name in names:
        if name.endswith("x"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / f"{name}.jpg").write_bytes(b"no picture")
        else:
            photograph(tmp_path / f"{name}.jpg", 10)
    with pytest.raises(DataError, match=says):
        load(str(tmp_path), held_out=0)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "plane"):
        photograph(tmp_path / name / "1.jpg", 10)
    assert load(str(tmp_path), held_out=0).classes == ["plane", "train"]


def test_only_the_test_images_are_read_where_that_is_all_that_is_wanted(plain, tmp_path):
    for part in ("train", "val"):
        shutil.copytree(plain, tmp_path / "both" / part)
    told = []
    d = load(str(tmp_path / "both"), tell=lambda *line: told.append(line), only_test=True)
    assert len(told) == 12
    assert len(d.left_out) == 1
    assert len(d.test_images) == 11


def test_every_file_is_told_of(plain):
    told = []
    load(str(plain), held_out=0, tell=lambda *line: told.append(line))
    assert [line[:2] for line in told] == [(i, 12) for i in range(1, 13)]
    assert [line[2] is not None for line in told] == [i == 3 for i in range(12)]


def test_a_photograph_that_vanishes(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "animals")
    d = load(str(tmp_path / "animals"), held_out=0)
    os.remove(tmp_path / "animals" / "dog" / "0.jpg")
    with pytest.raises(DataError, match=r"dog/0\.jpg: could be read before and cannot be now \(No such file"):
        d.train_images[:]


# -- the loader over photographs ----------------------------------------------------------------
def test_the_loader_over_photographs(plain):
    d = load(str(plain), crop=200, held_out=0)
    p = Preprocessing.centred(d.statistics, 200)
    noise = ColourNoise.of(d.statistics.covariance)
    batches = [
        list(Loader(d.train_images, d.train_labels, 4, p, d.augmentation, 5, workers, colour=noise).epoch(2))
        for workers in (1, 4)
    ]
    order = Loader(d.train_images, d.train_labels, 4, p, d.augmentation, 5).order(2)
    for (images, labels), (same, _), part in zip(*batches, np.split(order, [4, 8]), strict=True):
        assert np.array_equal(images, same), "threads change nothing"
        crops = RandomCrop(200)(d.train_images[part], 5, 2, part)
        expected = (crops - p.mean + noise.draw(5, 2, part)[:, :, None, None]) / 1.1
        np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-3)
        assert images.dtype == "float32"
        assert np.array_equal(labels, d.train_labels[part])


def test_images_may_stand_still(plain):
    photographs = load(str(plain), crop=200, held_out=0)
    assert photographs.still == CentreCrop(200)
    crops = photographs.still(photographs.train_images[:2], 0, 0, np.arange(2))
    assert np.array_equal(crops, photographs.train_images[:2][:, :, 28:228, 28:228])
    assert load("digits").still == Augmentation()


def test_selection_takes_what_arrays_take():
    images = RANDOM.integers(0, 256, (9, 1, 2, 2), "uint8")
    some = folder.Selection(images, np.array([8, 3, 5]))
    assert (len(some), some.shape) == (3, (3, 1, 2, 2))
    assert np.array_equal(some[1:], images[[3, 5]])
    assert np.array_equal(some[np.array([2, 0])], images[[5, 8]])


def test_odd_images_are_left_out_by_name(extra_data, plain, tmp_path):
    (tmp_path / "odd").symlink_to(extra_data / "odd-images" / "oddities")
    (tmp_path / "dog").symlink_to(plain / "dog")
    d = load(str(tmp_path), held_out=0)
    assert d.train_labels.tolist() == [0] * 6 + [1] * 9
    assert len(d.left_out) == 3
