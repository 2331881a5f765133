"""Settings that change what is trained, transfer, evaluation, ensembles, estimates."""

import json
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from test_train import _in_an_empty_folder, log_of, refused, run, save_again  # noqa: F401

from minitorch_alex import estimate, evaluate, models, philox, train
from minitorch_alex import run as run_module
from minitorch_alex import trained as trained_module
from minitorch_alex.checkpoint import CheckpointError, read_checkpoint
from minitorch_alex.config import Config, ConfigError, read_file
from minitorch_alex.data import Preprocessing, load
from minitorch_alex.data.augmentation import ten_crops
from minitorch_alex.nn import BatchNorm1d, Dropout, Flatten, Linear, LocalResponseNorm, Sequential, Tanh
from minitorch_alex.reference import reference_for
from minitorch_alex.run_folder import RunFolder
from minitorch_alex.tensor import Tensor
from minitorch_alex.torch_weights import write_torch_weights
from minitorch_alex.trained import IMAGENET, Trained, load_trained
from minitorch_alex.trained import evaluate as measure


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(train, "draw", lambda run: None)


def assembled(**settings):
    return run_module.assemble(Config(backend="numpy", **settings).check(), RunFolder(Path("run")))


def numbers(out: str) -> list[list[float]]:
    """The lines of evaluate's table: loss, top-1 error, top-5 error."""
    return [[float(w) for w in line.split() if w.replace(".", "").isdigit()] for line in out.splitlines()[4:]]


# -- groups of parameters -----------------------------------------------------------------
def group_of(r, name):
    parameter = dict(r.network.named_parameters())[name]
    (group,) = [g for g in r.optimizer.param_groups if any(p is parameter for p in g["params"])]
    return group["lr"], group["weight_decay"]


def test_rates_decay_and_freezing():
    r = assembled(lr=0.1, rates=["fc4=10", "bias=2", "conv1=0.5"], freeze=["conv3"], weight_decay=0.25)
    assert group_of(r, "conv2.weight") == (0.1, 0.25)
    assert group_of(r, "conv2.bias") == (0.2, 0)
    assert group_of(r, "conv1.weight") == (0.05, 0.25)
    assert group_of(r, "fc4.weight") == (1.0, 0.25)
    assert group_of(r, "fc4.bias") == (2.0, 0)
    assert r.optimizer.param_groups[0]["lr"] == 0.1, "what the log calls the learning rate"
    assert not r.network.conv3.weight.requires_grad
    assert sum(len(g["params"]) for g in r.optimizer.param_groups) == 6
    everything = assembled(decay="everything", weight_decay=0.25)
    assert group_of(everything, "conv2.bias") == group_of(everything, "conv2.weight") == (0.02, 0.25)


def test_frozen_layers_stay_and_the_rest_moves(few_digits):
    assert run("--freeze", "conv1,conv2", "--epochs", 1, "--backend", "numpy", "--out", "a") == 0
    weights = load_trained("a").network.state_dict()
    philox.manual_seed(0)
    before = models.build("alexnet_small", 10, (1, 8, 8)).state_dict()
    for name in before:
        assert np.array_equal(weights[name], before[name]) == name.startswith(("conv1", "conv2")), name
    assert run("--resume", "a", "--epochs", 2) == 0
    again = load_trained("a").network.state_dict()
    assert np.array_equal(again["conv1.weight"], before["conv1.weight"])
    assert not np.array_equal(again["fc4.weight"], weights["fc4.weight"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--freeze conv9", "no such layer; there are conv1, conv2"),
        ("--rates conv9=2", "no such layer"),
        ("--rates fc4", "LAYER=FACTOR"),
        ("--rates fc4=-1", "LAYER=FACTOR"),
        ("--freeze conv1,conv2,conv3,fc4", "nothing to train"),
        ("--without colour", "--without"),
        ("--without lrn,lrn", "--without"),
        ("--new-head", "--init-from"),
        ("--colour deviation", "3 channels"),
        ("--model alexnet", "takes images of (3, 227, 227), not (1, 8, 8)"),
        ("--held-out 1", "below 1"),
        ("--init-from nothing.pth", "nothing.pth"),
        ("--data nowhere", "does not exist"),
        ("--rates fc4=1 fc4=2", "one factor for each layer"),
        ("--colour deviation --without augmentation", "choose one of them"),
        ("--estimate --resume run", "do not go with them"),
        ("--memory --out run", "do not go with them"),
        ("--init lsuv --init-from cifar10", "--init and --init-from"),
        ("--init-from cifar10", "it takes images of (3, 32, 32), not (1, 8, 8)"),
        ("--init-from cifar10 --model lenet5", "lenet5"),
    ],
)
def test_refusals(options, says, capsys):
    refused(capsys, *options.split(), says=says)


# -- ablation and initial weights reach the network ------------------------------------------
def test_switches_reach_the_network_and_the_checkpoint(few_digits):
    options = "--without lrn dropout augmentation --activation tanh --epochs 1 --backend numpy --out a"
    assert run(*options.split()) == 0
    network = load_trained("a").network
    kinds = {type(m) for _, m in network.named_modules()}
    assert not kinds & {LocalResponseNorm, Dropout}
    assert Tanh in kinds
    assert run("--resume", "a", "--epochs", 2) == 0


def test_without_augmentation_images_are_as_they_are():
    r = assembled(without=["augmentation"], colour="none")
    loader = r.loader()
    order = loader.order(0)[:4]
    assert np.array_equal(loader.batch(0, order)[0], r.preprocessing(r.dataset.train_images[order]))


def test_initial_weights_by_name():
    own, he, lsuv, paper = (assembled(init=name).network for name in ("own", "he", "lsuv", "paper"))
    assert not np.array_equal(own.conv1.weight.numpy(), lsuv.conv1.weight.numpy())
    assert paper.conv2.weight.numpy().std() == pytest.approx(0.01, rel=0.05)
    assert paper.conv2.bias.numpy().tolist() == [1.0] * 64
    assert he.conv2.weight.numpy().std() == pytest.approx(math.sqrt(2 / 800), rel=0.05)


# -- transfer --------------------------------------------------------------------------------
def test_transfer_takes_weights_and_preprocessing(few_digits, monkeypatch):
    assert run("--epochs", 1, "--backend", "numpy", "--out", "source") == 0
    source = load_trained("source")
    source.preprocessing.mean[:] += 1
    monkeypatch.setattr(run_module, "load_trained", lambda path: source)
    whole = assembled(init_from="source")
    assert all(np.array_equal(a, whole.network.state_dict()[n]) for n, a in source.network.state_dict().items())
    assert whole.preprocessing is source.preprocessing, "the features are used to these pixels"
    new = assembled(init_from="source", new_head=True)
    mine, theirs = new.network.state_dict(), source.network.state_dict()
    assert np.array_equal(mine["conv3.weight"], theirs["conv3.weight"])
    assert not np.array_equal(mine["fc4.weight"], theirs["fc4.weight"])
    assert not mine["fc4.bias"].any()


def test_transfer_to_other_classes(few_digits, monkeypatch, capsys):
    assert run("--epochs", 1, "--backend", "numpy", "--out", "source") == 0
    whole = run_module.load

    def three_classes(source, **options):
        d = whole(source, **options)
        for part in ("train", "test"):
            labels = getattr(d, f"{part}_labels")
            setattr(d, f"{part}_images", getattr(d, f"{part}_images")[labels < 3])
            setattr(d, f"{part}_labels", labels[labels < 3])
        d.classes = d.classes[:3]
        return d

    monkeypatch.setattr(run_module, "load", three_classes)
    refused(capsys, "--init-from", "source", says="it knows 10 classes, and the data have 3; --new-head")
    assert run("--init-from", "source", "--new-head", "--freeze", "conv1", "--epochs", 1, "--out", "new") == 0
    assert load_trained("new").classes == ["0", "1", "2"]


def test_weights_that_do_not_fit(few_digits, capsys):
    assert run("--epochs", 1, "--backend", "numpy", "--out", "source") == 0
    state = load_trained("source").network.state_dict()
    write_torch_weights("strange.pth", state)
    refused(capsys, "--init-from", "strange.pth", says="not the weights of torchvision's AlexNet")
    Path("damaged.safetensors").write_bytes(Path("source/checkpoint.safetensors").read_bytes()[:-9])
    refused(capsys, "--init-from", "damaged.safetensors")


# -- evaluation ----------------------------------------------------------------------------------
@pytest.fixture
def two_runs(few_digits):
    for seed in (1, 2):
        assert run("--epochs", 3, "--seed", seed, "--backend", "numpy", "--out", f"run{seed}") == 0


def test_evaluate_says_what_the_log_says(two_runs, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "load", run_module.load)  # the few digits
    capsys.readouterr()
    assert evaluate.main(["run1", "run2", "--backend", "numpy"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    first, second, both = numbers(shown.out)
    for row, folder in ((first, "run1"), (second, "run2")):
        last = [line for line in log_of(Path(folder)) if "test_top1" in line][-1]
        expected = [last["test_loss"], 100 * (1 - last["test_top1"]), 100 * (1 - last["test_top5"])]
        np.testing.assert_allclose(row, expected, atol=0.006)
    d = run_module.load("digits")
    each = []
    for folder in ("run1", "run2"):
        t = load_trained(folder)
        scores = t.network.eval()(Tensor(t.preprocessing(d.test_images))).numpy().astype("float64")
        each.append(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    mean = np.mean(each, axis=0)
    right = mean[np.arange(80), d.test_labels]
    top1 = (mean.argmax(axis=1) == d.test_labels).mean()
    np.testing.assert_allclose(both[:2], [-np.log(right).mean(), 100 * (1 - top1)], atol=0.006)


def test_evaluate_refuses(two_runs, capsys, plain):
    def refuses(*arguments, says):
        capsys.readouterr()
        assert evaluate.main([str(a) for a in arguments]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1, error
        assert error.startswith("evaluate: ")
        assert says in error

    refuses("nowhere", says="there is no checkpoint there")
    refuses("run1", "--data", plain, says="are not the 2 of")
    refuses("run1", "--crops", 10, says="no room for ten crops")
    refuses("run1", "--backend", "cupy", says="--backend cupy")
    Path("bad.pth").write_bytes(b"PK nonsense")
    refuses("bad.pth", says="bad.pth")


class Brightness:
    """Scores that tell what it was shown: the mean of the pixels, and 0."""

    def named_modules(self):
        return iter(())

    def eval(self):
        return self

    def __call__(self, x):
        mean = x.numpy().mean(axis=(1, 2, 3))
        return Tensor(np.stack([mean, 0 * mean], axis=1))


def test_ten_crops_are_averaged_as_probabilities():
    images = np.random.default_rng(1).integers(0, 9, (5, 3, 12, 12), "uint8")
    t = Trained("brightness", Brightness(), ["a", "b"], (3, 4, 4), Preprocessing([1.0, 2, 3], [2.0, 2, 2]))
    probabilities = []
    for crop in ten_crops(images.astype("float64"), 4):
        mean = ((crop - np.array([1.0, 2, 3]).reshape(3, 1, 1)) / 2).mean(axis=(1, 2, 3))
        probabilities.append(1 / (1 + np.exp(-mean)))
    np.testing.assert_allclose(np.exp(t.log_probabilities(images, 10))[:, 0], np.mean(probabilities, axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.exp(t.log_probabilities(images))[:, 0], probabilities[4], rtol=1e-5)
    with pytest.raises(ValueError, match=r"trained on images of \(3, 4, 4\), these are \(1, 12, 12\)"):
        t.log_probabilities(images[:, :1])


def test_evaluation_in_parts_counts_every_image(monkeypatch):
    images = np.random.default_rng(1).integers(0, 9, (11, 3, 4, 4), "uint8")
    labels = np.arange(11) % 2
    t = Trained("brightness", Brightness(), ["a", "b"], (3, 4, 4), Preprocessing([4.0] * 3, [1.0] * 3))
    (whole,) = measure([t], images, labels)
    monkeypatch.setattr(trained_module, "PIXELS_AT_ONCE", 3 * 48)
    (parts,) = measure([t], images, labels, workers=3)
    assert asdict(parts) == pytest.approx(asdict(whole))
    assert whole.top1 == np.mean((images.mean(axis=(1, 2, 3)) < 4) == (labels == 1))
    assert whole.top5 == 1


def test_a_torchvision_file_is_a_trained_network(monkeypatch):
    def small(classes=1000):
        return Sequential({"classifier": Sequential({"6": Linear(2, classes)})})

    monkeypatch.setitem(models.MODELS, "torchvision_alexnet", models.MODELS["torchvision_alexnet"]._replace(make=small))
    state = small(7).state_dict()
    write_torch_weights("a.pth", state)
    t = load_trained("a.pth")
    assert t.classes == [f"class {i}" for i in range(7)]
    assert t.preprocessing is IMAGENET
    assert np.array_equal(t.network.state_dict()["classifier.6.weight"], state["classifier.6.weight"])


@pytest.mark.parametrize("part", ["config", "classes", "image_shape"])
def test_a_checkpoint_that_does_not_say_what_it_holds(part, few_digits):
    assert run("--epochs", 1, "--backend", "numpy", "--out", "run") == 0
    path = Path("run/checkpoint.safetensors")
    arrays, info = read_checkpoint(path)
    for wrong in ({k: v for k, v in info.items() if k != part}, {**info, part: 3}):
        save_again(path, arrays, wrong)
        with pytest.raises(CheckpointError, match="does not say what network"):
            load_trained(path)


# -- telling -------------------------------------------------------------------------------------
def test_photographs_through_the_command(packed, plain, capsys):
    """A small network on packed photographs, then measured on ten crops and on plain files."""
    options = "--epochs 1 --batch-size 4 --lr 0.001 --backend numba --colour deviation --held-out 0.3 --out run"
    assert run("--data", packed, *options.split()) == 0
    shown = capsys.readouterr().out
    assert "animals: 7 training images, 4 held-out images, 2 classes" in shown
    t = load_trained("run")
    assert t.image_shape == (3, 224, 224)
    assert evaluate.main(["run", "--crops", "10"]) == 0
    assert evaluate.main(["run", "--data", str(plain), "--held-out", "0"]) == 0
    shown = capsys.readouterr().out
    assert "11 images, training images" in shown
    assert "left out" in shown
    assert "3.jpg: this is no picture" in shown


def test_a_checklist_where_nothing_is_learnt(few_digits, capsys, monkeypatch):
    monkeypatch.setattr(train, "STEPS_TO_LEARN", 40)
    assert run("--lr", "0.0000001", "--epochs", 9, "--backend", "numpy", "--out", "stuck") == 0
    error = capsys.readouterr().err
    assert error.count("is still that of knowing nothing, 2.303") == 1, "once"
    assert "--init lsuv" in error
    assert run("--epochs", 9, "--backend", "numpy", "--out", "learns") == 0
    assert capsys.readouterr().err == ""


def test_estimate(few_digits, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "SECONDS", 0.1)
    assert run("--estimate", "--batch-size", 10, "--epochs", 7) == 0
    shown = capsys.readouterr().out
    assert "a step of 10 images takes" in shown
    assert "an epoch of 160 images" in shown
    assert "7 epochs " in shown
    assert not Path("runs").exists()


def test_estimate_without_imagenet(monkeypatch):
    monkeypatch.setattr(estimate, "SECONDS", 0.0)
    monkeypatch.setattr(estimate, "evaluate", lambda *_: None)
    seen = []
    entry = models.MODELS["alexnet"]._replace(make=lambda classes: models.build("alexnet_small", classes, (3, 8, 8)))
    monkeypatch.setitem(models.MODELS, "alexnet", entry._replace(image_shape=(3, 8, 8)))
    config = Config(data="imagenet", model="alexnet", batch_size=4, epochs=90, backend="numpy", colour="deviation")
    text = estimate.estimate(config, lambda run, images, labels: seen.append(images.shape) or 0.0)
    assert set(seen) == {(4, 3, 8, 8)}
    assert "noise in place of ImageNet's 1,281,167 photographs" in text
    assert "five to six days" in text


@pytest.mark.parametrize(
    ("seconds", "says"), [(1.25, "1.2 seconds"), (150, "2.5 minutes"), (7300, "2.0 hours"), (518400, "6.0 days")]
)
def test_durations(seconds, says):
    assert estimate.duration(seconds) == says


def test_a_long_epoch_is_saved_in_between(few_digits, monkeypatch):
    saved = []
    whole = run_module.Run.save
    monkeypatch.setattr(run_module.Run, "save", lambda self: saved.append(self.progress.batch) or whole(self))
    monkeypatch.setattr(train, "SAVE_EVERY", -1.0)
    assert run("--epochs", 1, "--backend", "numpy", "--out", "run") == 0
    assert saved == [0, 1, 2, 3, 4, 5, 0]


def test_the_reference_belongs_to_its_recipe():
    reference = reference_for(Config(), "digits")
    assert reference is not None
    assert len(reference["epochs"]) == Config().epochs
    assert json.dumps(reference)
    assert reference_for(Config(seed=9, backend="numpy", workers=3, epochs=4), "digits") == reference
    assert reference_for(Config(lr=0.5), "digits") is None
    assert reference_for(Config(), "cifar10") is None
    assert len(reference_for(Config(**read_file("cifar10")), "cifar10")["seeds"]) > 1
    assert reference_for(Config(), "photographs") is None


def test_recipes_are_sound():
    for name in ("cifar10", "alexnet"):
        Config(**read_file(name)).check()
    alexnet = Config(**read_file("alexnet"))
    assert (alexnet.batch_size, alexnet.lr, alexnet.momentum, alexnet.weight_decay) == (128, 0.01, 0.9, 0.0005)
    assert (alexnet.epochs, alexnet.schedule, alexnet.sgd, alexnet.decay) == (90, "plateau", "paper", "weights")


def test_the_paper_centres_its_pixels_and_others_standardise(packed):
    d = load(str(packed), crop=227, held_out=0)
    centred, standard = (run_module.prepare_pixels(model, d) for model in ("alexnet", "torchvision_alexnet"))
    assert centred.mean.shape == (3, 227, 227)
    assert (centred.std == 1).all()
    assert standard.mean.shape == (3, 1, 1)
    x = standard(d.train_images[:])
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, atol=1e-3)


def test_rate_factors():
    assert Config(rates=["fc8=10", "bias=2"]).check().rate_factors() == {"fc8": 10.0, "bias": 2.0}
    with pytest.raises(ConfigError):
        Config(rates=["=3"]).check()


def test_tensorboard_follows_a_run_that_is_stopped(few_digits):
    """Also where it is wanted only when the run goes on."""
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    from test_tensorboard import shown

    assert run("--epochs", 1, "--backend", "numpy", "--out", "run") == 0
    assert not Path("run/tensorboard").exists()
    assert run("--resume", "run", "--epochs", 2, "--tensorboard") == 0
    steps, losses = zip(*shown(Path("run/tensorboard"))["loss/each_step"], strict=True)
    logged = [line for line in log_of(Path("run")) if "loss" in line]
    assert list(steps) == [line["step"] for line in logged]
    np.testing.assert_allclose(losses, [line["loss"] for line in logged], rtol=1e-6)


def test_memory_of_a_step(capsys):
    assert run("--memory", "--batch-size", 8, "--backend", "numpy") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("alexnet_small, 10 classes, 8 images of 1 x 8 x 8\npeak of one step: ")
    assert "predicted" in shown
    assert not Path("runs").exists()


def test_an_option_may_be_repeated(few_digits):
    options = "--without lrn --without dropout,overlap --rates bias=2 --rates fc4=3 --backend numpy"
    assert run(*options.split(), "--epochs", 1, "--out", "a") == 0
    config = load_trained("a").config
    assert (config["without"], config["rates"]) == (["lrn", "dropout", "overlap"], ["bias=2", "fc4=3"])


def test_frozen_batch_norm_keeps_its_averages(few_digits, monkeypatch):
    def small(classes, shape):
        return Sequential({"flat": Flatten(), "fc1": Linear(64, 9), "bn1": BatchNorm1d(9), "fc2": Linear(9, classes)})

    monkeypatch.setitem(models.MODELS, "alexnet_small", models.MODELS["alexnet_small"]._replace(make=small))
    assert run("--epochs", 1, "--freeze", "bn1", "--backend", "numpy", "--out", "a") == 0
    assert not load_trained("a").network.bn1.running_mean.numpy().any()
    assert run("--epochs", 1, "--backend", "numpy", "--out", "b") == 0
    assert load_trained("b").network.bn1.running_mean.numpy().any()


def test_the_source_says_what_network_it_is(few_digits):
    assert run("--epochs", 1, "--activation", "tanh", "--backend", "numpy", "--out", "a") == 0
    assert run("--init-from", "a", "--epochs", 1, "--lr", "1e-12", "--backend", "numpy", "--out", "b") == 0
    a, b = (load_trained(name) for name in "ab")
    assert b.config["activation"] == "tanh"
    images = run_module.load("digits").test_images
    np.testing.assert_allclose(a.log_probabilities(images), b.log_probabilities(images), atol=1e-4)


def test_lsuv_for_a_new_head_looks_at_the_features_it_gets(few_digits):
    assert run("--epochs", 1, "--backend", "numpy", "--out", "a") == 0
    r = assembled(init_from="a", new_head=True, init="lsuv", freeze=["conv1"])
    scores = r.network.eval()(Tensor(run_module.first_images(r))).numpy()
    assert scores.var() == pytest.approx(1, abs=0.11)
    theirs = load_trained("a").network
    assert np.array_equal(r.network.conv2.weight.numpy(), theirs.conv2.weight.numpy())
    assert r.network.conv2.weight.requires_grad
    assert not r.network.conv1.weight.requires_grad


def test_estimate_counts_the_images_that_a_step_has(few_digits, monkeypatch):
    monkeypatch.setattr(estimate, "SECONDS", 0.0)
    text = estimate.estimate(
        Config(batch_size=100, backend="numpy"), lambda run, images, labels: time.sleep(len(labels) / 1000)
    )
    rate = float(text.split(": ")[-1].split(" images/s")[0]) if ": " in text else 0
    assert 500 < rate < 1050, text  # 160 images in steps of 100 and 60, a millisecond for each image


@pytest.mark.parametrize("held_out", ["nan", "-0.5", "1", "inf"])
def test_evaluate_refuses_shares_that_are_none(held_out, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["cifar10", "--held-out", held_out])
    assert "from 0 up and below 1" in capsys.readouterr().err


def test_evaluate_says_whose_images_these_may_be(packed, capsys):
    assert run("--data", packed, "--epochs", 1, "--held-out", 0.3, "--lr", 0.001, "--out", "a") == 0
    capsys.readouterr()
    assert evaluate.main(["a"]) == 0
    assert "it may have learnt from these" not in capsys.readouterr().out
    assert evaluate.main(["a", "--held-out", "0.5"]) == 0
    assert "note      a was not trained on the other images here" in capsys.readouterr().out


def test_a_photograph_that_vanishes_while_training(plain, tmp_path, capsys, monkeypatch):
    shutil.copytree(plain, tmp_path / "animals")
    monkeypatch.setattr(
        train, "take_step", lambda run, *batch: (tmp_path / "animals/dog/4.jpg").unlink(missing_ok=True) or 1.0
    )
    options = ["--data", "animals", "--held-out", 0, "--batch-size", 1, "--epochs", 2, "--backend", "numpy"]
    assert run(*options, "--out", "a") == 2
    assert "dog/4.jpg: could be read before" in capsys.readouterr().err
    steps = read_checkpoint(Path("a/checkpoint.safetensors"))[1]["progress"]["step"]
    assert steps == len([line for line in log_of(Path("a")) if "loss" in line]) > 0
    refused(capsys, "--resume", "a", says="11 training images then, 10 now")


def test_a_run_goes_on_where_its_photographs_have_moved(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "animals")
    options = ["--data", "animals", "--held-out", 0, "--batch-size", 8, "--epochs", 1, "--lr", 0.001]
    assert run(*options, "--out", "a") == 0
    (tmp_path / "animals").rename(tmp_path / "beasts")
    assert run("--resume", "a", "--data", "beasts", "--epochs", 2) == 0
