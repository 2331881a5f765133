# %% [markdown]
# # 9. Seeing inside
#
# A trained network is a heap of numbers, 60 million of them in AlexNet. What do they stand for? Section 6.1 of the paper
# looks in three ways. Its Figure 3 shows the 96 filters of the first layer. The left of its Figure 4 shows eight test
# images, each with the five classes that the network finds likeliest. The right shows five test images, each beside the
# six training images that are most like it *to the network*. This lesson makes all three, from a network that comes with
# the engine and from one of your own, and asks of each what it proves. In the end, what a network has learnt is used for
# a task that it was not trained for.
#
# **Afterwards you can** see what a network looks for, what it confuses and which images it finds alike, say what such
# pictures do not prove, and give a trained network a new task.
#
# You need lessons 5 and 8. The lesson takes about 60 minutes.

# %%
# Where the engine is not installed (on Colab, say): install it, and nothing else, from the
# folder above this one.
import importlib.util
import subprocess
import sys

found = importlib.util.find_spec("minitorch_alex")
if found is None or found.origin is None:  # without a file: any folder of that name
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", ".."],
        check=True,
    )

# %%
import statistics
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex import init, models, nn, optim, plots
from minitorch_alex.checkpoint import CHECKPOINT, save_checkpoint
from minitorch_alex.data import Preprocessing, cifar10, load
from minitorch_alex.data.photographs import read_photograph
from minitorch_alex.exercises import check, hint
from minitorch_alex.source import source
from minitorch_alex.trained import SHIPPED, Trained, load_trained
from minitorch_alex.watch import activations, watching

BLUE, RED = "#3b6fb6", "#c8553d"

# %% [markdown]
# ## Three networks
#
# The first one comes with the engine: a small AlexNet that was trained on CIFAR-10, photographs of 32 x 32 pixels in ten
# classes. It lies in a *checkpoint*: a file with the weights, and with what else it takes to use them, the names of the
# classes and how pixels are prepared. `load_trained` reads it, and `SHIPPED` is its place.

# %%
shipped = load_trained(SHIPPED)
print(shipped.network)
print("classes:", ", ".join(shipped.classes))
print("takes images of", shipped.image_shape)
print(shipped.preprocessing)

# %% [markdown]
# The photographs themselves are too many to come with the engine. If they lie on this computer already, we use them. If
# not, nothing is downloaded, and the handwritten digits stand in. (They are looked for in the folder that the variable
# `MINITORCH_ALEX_DATA` names, and where `python -m minitorch_alex.train --config cifar10` puts them.)

# %%
place = cifar10.find()
photographs = None if place is None else cifar10.load(place)
if photographs is None:
    print("CIFAR-10 is not here: the digits stand in where test images are shown.")
else:
    print("CIFAR-10 is here: the shipped network is shown with its test images.")

# %% [markdown]
# The second one is your own: the same kind of network, trained on the digits now, in a few seconds. `models.build`
# makes it by its name, with random weights (lesson 7). `digits.augmentation` shifts each image by up to a pixel at
# random each time it is seen. As in lesson 8, the shift is a function of the seed, the epoch and the image's number.
# `network.train()` switches dropout on (lesson 4) and `network.eval()` switches it off.

# %%
digits = load("digits")
preprocessing = Preprocessing.of(digits.train_images)
EPOCHS = 8


def train(network, images, labels, epochs, vary=None):
    optimizer = optim.SGD(
        network.parameters(), 0.02, 0.9, weight_decay=0.0005, form="paper"
    )
    vary = vary or digits.augmentation
    rng = np.random.default_rng(0)
    network.train()
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        for start in range(0, len(order), 32):
            chosen = order[start : start + 32]
            varied = vary(images[chosen], 0, epoch, chosen)  # the seed is 0
            optimizer.zero_grad()
            scores = network(mt.tensor(preprocessing(varied)))
            F.cross_entropy(scores, labels[chosen]).backward()
            optimizer.step()
    network.eval()


mt.manual_seed(0)
network = models.build("alexnet_small", 10, digits.image_shape)
train(network, digits.train_images, digits.train_labels, EPOCHS)

# %% [markdown]
# Now save it and load it again. `python -m minitorch_alex.train` writes such a checkpoint too, into the folder of its
# run. If you have one of the digits, put that folder in the place of `None`, and the rest of this lesson looks into
# your own network. The commands `predict` and `figures` do the same with their option `--trained RUN`. (`CHECKPOINT`
# is the name of the file. The `None` behind the network stands for an optimizer, which only a training that is to go
# on would need. `log_probabilities` takes images as they are and prepares them itself.)

# %%
RUN = None  # or the folder of a run on the digits, such as "../runs/digits-001"

info = {
    "config": {"model": "alexnet_small"},
    "classes": digits.classes,
    "image_shape": digits.image_shape,
}
with tempfile.TemporaryDirectory() as folder:
    save_checkpoint(Path(folder) / CHECKPOINT, network, None, info, preprocessing)
    mine = load_trained(RUN or folder)

with mt.no_grad():
    before = F.log_softmax(network(mt.tensor(preprocessing(digits.test_images))), 1)
after = mine.log_probabilities(digits.test_images)
assert RUN or np.allclose(before.numpy(), after, atol=1e-5)
right = after.argmax(axis=1) == digits.test_labels
print(f"{right.sum()} of {right.size} held-out digits are right")
assert RUN or right.mean() > 0.9

# %% [markdown]
# The third has learnt nothing: a network of the same form with its first, random weights. It is the most important of
# the three. Whatever we find in a trained network, we shall look for in its untrained twin, too. **Only what differs
# was learnt.** (`Trained` is what `load_trained` returns: a network together with its classes, the size of its images
# and the way to prepare pixels.)


# %%
def untrained(trained):
    """A network of the same form, with the weights that training begins with."""
    mt.manual_seed(1)
    classes, shape = trained.classes, trained.image_shape
    network = models.build("alexnet_small", len(classes), shape)
    return Trained("untrained", network, classes, shape, trained.preprocessing)


shipped_twin, my_twin = untrained(shipped), untrained(mine)
chances = my_twin.log_probabilities(digits.test_images)
right = chances.argmax(axis=1) == digits.test_labels
print(f"untrained: {right.sum()} of {right.size} held-out digits are right")
assert right.mean() < 0.4

# %% [markdown]
# ## The filters: the paper's Figure 3
#
# A filter of the first layer has a tap for each pixel and colour of its window, so it can be shown as a small picture.
# Taps are positive or negative, and a picture needs numbers from 0, black, to 1, white. So divide each filter by twice
# its largest tap, without regard to the sign, and add 1/2. Then 0 is mid-grey: there the filter does not look at all.
# Light is what adds to its answer, dark is what takes away. A spot is coloured where the taps for red, green and blue
# differ.

# %%
weight = shipped.network.conv1.weight.numpy()
print(weight.shape, f"taps from {weight.min():.2f} to {weight.max():.2f}")
pictures, _ = plots.filter_pictures(weight)
for w, picture in zip(weight, pictures):
    ours = 0.5 + w / (2 * np.abs(w).max())
    ours = ours.transpose(1, 2, 0)  # Matplotlib wants the colours last
    assert np.allclose(ours, picture)
    assert np.isclose(max(picture.max(), 1 - picture.min()), 1)
plots.filters(weight, "The shipped network's first layer")

# %%
random_weight = shipped_twin.network.conv1.weight.numpy()
plots.filters(random_weight, "The same layer before training")

# %% [markdown]
# Note what such pictures hide. Each filter is stretched by itself, so a faint one looks as bold as a strong one:

# %%
strongest = np.abs(weight).max(axis=(1, 2, 3))
print(f"the largest tap of a filter is {strongest.min():.2f} to {strongest.max():.2f}")
assert strongest.max() > 2 * strongest.min()

# %% [markdown]
# ### Grey and coloured
#
# The trained filters have more order, it seems. The eye finds order in noise as well, so let us measure something.
#
# In the paper's figure the upper 48 filters, from the first graphics card, mostly ignore colour: edges in all
# directions, fine and coarse. The lower 48, from the second card, are mostly blobs of colour. The authors report that
# this happened in every run, whatever the first weights were. Only which card got which part changed. It comes from
# the two columns (lesson 3): the next layer on a card sees only the 48 channels of its own card, so the columns can
# divide the work between them.
#
# A filter with equal taps for red, green and blue sees only brightness. So take the mean over the three colours as its
# grey part. How much of the filter is that? Compare the sums of the squares. (The grey part stands in all three
# colours, so its squares count three times.)


# %%
def grey_share(weight):
    """For each filter from 0 to 1: 1 if red, green and blue have equal taps."""
    grey = weight.mean(axis=1, keepdims=True)
    return 3 * (grey**2).sum(axis=(1, 2, 3)) / (weight**2).sum(axis=(1, 2, 3))


share, random_share = grey_share(weight), grey_share(random_weight)
for name, found in ("trained", share), ("untrained", random_share):
    print(f"{name:10}: {found.min():.2f} to {found.max():.2f}, mean {found.mean():.2f}")
halves = share[:16].mean(), share[16:].mean()
print(f"trained: mean of filters 0 to 15 {halves[0]:.2f}, of 16 to 31 {halves[1]:.2f}")
assert share.std() > 2 * random_share.std() and abs(halves[1] - halves[0]) < 0.2

# %%
order = share.argsort()
figure = plt.figure(figsize=(9, 3), layout="constrained")
grid = figure.add_gridspec(2, 32, height_ratios=[1, 4])
for place, f in enumerate(order):
    axes = figure.add_subplot(grid[0, place])
    axes.imshow(pictures[f])
    axes.axis("off")
axes = figure.add_subplot(grid[1, :])
axes.plot(share[order], "o", color=RED, label="trained")
axes.plot(np.sort(random_share), "o", color=BLUE, label="untrained")
axes.axhline(1 / 3, color="black", ls=":", label="1/3")
axes.set(xlabel="filters in order", xlim=(-0.5, 31.5), ylim=(0, 1), ylabel="grey share")
axes.legend()
plt.show()

# %% [markdown]
# Random taps have a grey share of about 1/3. The mean squares of independent numbers add up (lesson 5): the sum of
# three has three times their mean square, and their mean, a third of that sum, has 3/9 of it. After training the
# filters have drawn apart: coloured ones with hardly any grey, grey ones with hardly any colour, and many in between.
# But the halves do not differ as in the paper, because nothing divides them. This network has one column, and the
# order of its filters means nothing. **Do not expect the paper's sorted picture from an AlexNet without groups**, and
# many programs of that name have none.
#
# ## What a filter answers to
#
# Let us give the network something to look at. Here is the photograph of Grace Hopper from lesson 8. `read` cuts out
# the central square and scales it to 32 x 32 pixels. Then one filter by hand, with lesson 3's loops:

# %%
path = get_sample_data("grace_hopper.jpg", asfileobj=False)
photo = shipped.read(path)
x = shipped.preprocessing(photo[None])
print(photo.shape, photo.dtype, "->", x.shape, x.dtype)


def answer_by_hand(image, taps, bias):
    """One filter on an image (C, H, W), with zeros around it that keep H x W."""
    (_, H, W), (_, R, S) = image.shape, taps.shape
    padded = np.pad(image, ((0, 0), (R // 2, R // 2), (S // 2, S // 2)))
    answer = np.empty((H, W))
    for p in range(H):
        for q in range(W):
            answer[p, q] = (padded[:, p : p + R, q : q + S] * taps).sum() + bias
    return answer


by_hand = answer_by_hand(x[0], weight[0], shipped.network.conv1.bias.numpy()[0])

# %% [markdown]
# What a layer makes of an image is called its *activations*. Our network is an `nn.Sequential`, so we can stop behind
# each layer. `named_layers` has the layers by name:

# %%
made, y = {}, mt.tensor(x)
with mt.no_grad():
    for name, layer in shipped.network.eval().named_layers().items():
        y = layer(y)
        made[name] = y.numpy()
for name, values in made.items():
    print(f"{name:8}{values.shape}")
assert np.allclose(made["conv1"][0, 0], by_hand, atol=1e-4)

# %% [markdown]
# Not every network is a chain. The engine's `activations` works for any. It runs the network inside
# `with watching(...)`, which puts a function in the place of each layer's `forward` that also hands the output to a
# listener, `heard`. `@contextmanager` makes out of a function with a `yield` something for `with`: what stands before
# the `yield` is done at the beginning, what stands behind it at the end. Here that takes the functions away again
# (`pop`), so that each layer has its own `forward` back.

# %%
for name, values in activations(shipped.network, x).items():
    assert np.allclose(values, made[name], atol=1e-5)
source(watching)

# %% [markdown]
# Here is what the first layer's 32 filters make of the photograph, behind the ReLU. All are on one scale: black is 0,
# and white the largest number of all. Where a map is black, the filter's answer was not positive, and the ReLU has
# taken it away.

# %%
plots.activations(made["relu1"][0], "The first layer, behind its ReLU")

# %% [markdown]
# Filters do not care how large an image is. On a larger copy of the photograph it is easier to see what they answer to.
# Here are the three with the least grey in them and the three with the most. Red is a positive answer, blue a negative
# one, and white is 0.

# %%
large = read_photograph(path, 128)
with mt.no_grad():
    prepared = mt.tensor(shipped.preprocessing(large[None]))
    answers = shipped.network.conv1(prepared).numpy()[0]
chosen = [*order[:3], *order[-3:]]
figure, axes = plt.subplots(2, 7, figsize=(9, 3), layout="constrained")
for (above, below), f in zip(axes.T, [None, *chosen]):
    above.imshow(large.transpose(1, 2, 0) if f is None else pictures[f])
    if f is not None:
        limit = np.abs(answers[f]).max()
        below.imshow(answers[f], cmap="bwr", vmin=-limit, vmax=limit)
        above.set_title(f"filter {f}", fontsize=9)
for place in axes.flat:
    place.axis("off")
plt.show()

# %% [markdown]
# Do the grey ones really ignore colour? Take the colours out of the photograph, so that red, green and blue are equal in
# every pixel, and compare the answers of each filter with and without. The *correlation* of two maps is a number between
# -1 and 1: 1 if they rise and fall together in proportion, 0 if they have nothing to do with each other.

# %%
grey = large.mean(axis=0).round().astype("uint8")
colourless = np.stack([grey, grey, grey])
with mt.no_grad():
    prepared = mt.tensor(shipped.preprocessing(colourless[None]))
    without = shipped.network.conv1(prepared).numpy()[0]
kept = [np.corrcoef(answers[f].ravel(), without[f].ravel())[0, 1] for f in range(32)]
for name, few in ("least grey", order[:3]), ("most grey", order[-3:]):
    each = ", ".join(f"{kept[f]:.2f}" for f in few)
    print(f"the three with the {name}: correlation {each}")
print(f"share and correlation, over all 32: {np.corrcoef(share, kept)[0, 1]:.2f}")
assert min(kept[f] for f in order[-3:]) > 0.9 > max(kept[f] for f in order[:3])

# %% [markdown]
# They do: the greyest three answer nearly the same without the colours, and the least grey ones do not. In between the
# share is a good guide, not a perfect one.
#
# ## What makes a filter answer most
#
# The other way round: which images please a filter best? Look for the pieces of 5 x 5 pixels, out of all held-out
# digits, to which a filter of your own network answers most. `sliding_window_view` gives all windows of an array.

# %%
held_out = preprocessing(digits.test_images)
padded = np.pad(held_out[:, 0], ((0, 0), (2, 2), (2, 2)))
windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
patches = windows.reshape(-1, 25)
print(windows.shape, "->", patches.shape)


def best_patches(trained):
    """For each filter the 50 patches to which it answers most: (F, 50, 25)."""
    taps = trained.network.conv1.weight.numpy().reshape(-1, 25)
    order = (-patches @ taps.T).argsort(axis=0, kind="stable")
    return patches[order[:50].T]


best = best_patches(mine)
figure, axes = plt.subplots(4, 10, figsize=(9, 3.8), layout="constrained")
for f, row in enumerate(axes):
    taps = mine.network.conv1.weight.numpy()[f, 0]
    shown = [taps, best[f].mean(axis=0), *best[f, :8]]
    for place, values in zip(row, shown):
        place.imshow(values.reshape(5, 5), cmap="gray")
        place.axis("off")
    row[0].set_title(f"filter {f}", fontsize=9)
axes[0, 1].set_title("mean of 50", fontsize=9)
axes[0, 2].set_title("the best 8", fontsize=9)
plt.show()

# %% [markdown]
# Left are the taps, beside them the mean of the 50 best patches, then the best ones themselves. The mean resembles the
# filter. That seems to say what the network has learnt to see. Ask the untrained twin:


# %%
def likeness(trained):
    """The correlation of a filter with the mean of its best patches; the mean."""
    filters = trained.network.conv1.weight.numpy().reshape(-1, 25)
    means = best_patches(trained).mean(axis=1)
    return np.mean([np.corrcoef(f, m)[0, 1] for f, m in zip(filters, means)])


for name, trained in ("trained", mine), ("untrained", my_twin):
    print(f"{name:10}: correlation of filters and patches {likeness(trained):.2f}")
assert abs(likeness(my_twin) - likeness(mine)) < 0.1 and likeness(my_twin) > 0.5

# %% [markdown]
# In the untrained network they are as much alike. This is arithmetic and no learning: an answer is a sum of products, and
# it is large where light meets light and dark meets dark. Any filter, whatever it is, answers most to what looks like it.
#
# Deeper down this argument ends, since ReLUs and pooling lie in between. The third convolution lays 3 x 3 taps on maps
# of 2 x 2 numbers, so each of its numbers sees the whole digit. So take whole images, and for each channel those with
# its highest activations. (`trained.features(images, layer)` gives the activations for many images.)

# %%
deep = mine.features(digits.test_images, "relu3")
print(deep.shape)
largest = deep.max(axis=(2, 3))  # of each image and channel
best = (-largest).argsort(axis=0, kind="stable")  # for each channel, images in order
alive = np.flatnonzero(largest.max(axis=0) > 0)  # some image makes them answer
figure, axes = plt.subplots(4, 12, figsize=(9, 3.4), layout="constrained")
for row, channel in zip(axes, alive):
    for place, k in zip(row, best[:, channel]):
        place.imshow(digits.test_images[k, 0], cmap="gray")
        place.axis("off")
    row[0].set_title(f"channel {channel}", fontsize=9, loc="left")
plt.show()

# %% [markdown]
# How pure are such rows? Take the 20 best images of each channel and count how many are of one digit, whichever is the
# commonest. If a channel did not care, its 20 would be of all ten digits. (`np.bincount` counts how often 0, 1, 2 and
# so on occur among whole numbers.)


# %%
def purity(trained, layer):
    """The share of the commonest digit among each channel's 20 best images; the mean."""
    largest = trained.features(digits.test_images, layer).max(axis=(2, 3))
    best = (-largest).argsort(axis=0, kind="stable")[:20]
    shares = [np.bincount(digits.test_labels[b]).max() / 20 for b in best.T]
    return np.mean([s for s, top in zip(shares, largest.max(axis=0)) if top > 0])


print(f"{'':10}{'trained':>10}{'untrained':>12}")
for layer in "relu1", "relu2", "relu3":
    learnt, random = purity(mine, layer), purity(my_twin, layer)
    print(f"{layer:10}{learnt:10.2f}{random:12.2f}")
assert learnt > random + 0.1 and learnt > purity(mine, "relu1") + 0.1

# %% [markdown]
# Learning shows: the deeper the layer, the purer, and deep down much purer than without training. But read the last
# column before you give a channel a name. A good part of a pure row comes for nothing, since images of one digit look
# alike. And what the channel does with the other 339 of the 359 images is not in the picture.
#
# ## What it takes images for: Figure 4, left
#
# From here on there are test images, so it is the shipped network's turn if CIFAR-10 is here, and yours if not. The paper
# shows each image above its five likeliest classes, with the bar of the true one in red. The library's `predictions`
# does that. Four images come as they are, and four are those that surprised the network most.

# %%
subject, data = (mine, digits) if photographs is None else (shipped, photographs)
twin = untrained(subject)
test_images, test_labels = data.test_images[:1000], data.test_labels[:1000]
chances = np.exp(subject.log_probabilities(test_images))
surprise = -np.log(chances[np.arange(len(test_labels)), test_labels])
chosen = [*range(4), *surprise.argsort()[::-1][:4]]
plots.predictions(
    test_images[chosen], chances[chosen], subject.classes, test_labels[chosen]
)

# %% [markdown]
# How good is it over all? The paper counts a network as right *in five guesses* if the truth is among its five
# likeliest classes.

# %%
ranking = np.argsort(-chances, axis=1)
for guesses in 1, 2, 5:
    hits = (ranking[:, :guesses] == test_labels[:, None]).any(axis=1)
    print(f"right in {guesses}: {100 * hits.mean():.1f} % of {hits.size} images")
assert hits.mean() > 0.95

# %% [markdown]
# Which classes does it confuse? The **confusion matrix** counts: row t, column p holds how many images of class t were
# taken for p. Everything outside of the diagonal is a mistake. A good network makes few, so we look at its second guess
# as well: what would each image have been, if not what it was taken for?


# %%
def confusion_counts(labels, guesses):
    counts = np.zeros((10, 10), int)
    for truth, guess in zip(labels, guesses):
        counts[truth, guess] += 1
    return counts


first = confusion_counts(test_labels, ranking[:, 0])
second = confusion_counts(test_labels, ranking[:, 1])
assert first.sum() == len(test_labels)
assert np.trace(first) == (ranking[:, 0] == test_labels).sum()
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
titles = "first guess", "second guess"
turn = 0 if data is digits else 90  # long names stand upright
for place, counts, title in zip(axes, (first, second), titles):
    most = np.sort(counts.ravel())[-5]
    place.imshow(counts, cmap="Blues", vmax=most)
    for t, p in np.argwhere(counts):
        colour = "white" if counts[t, p] > most / 2 else "black"
        place.text(p, t, counts[t, p], ha="center", va="center", size=7, color=colour)
    place.set_xticks(range(10), subject.classes, rotation=turn, fontsize=8)
    place.set_yticks(range(10), subject.classes, fontsize=8)
    place.set(title=title, xlabel="taken for", ylabel="truth")
plt.show()

# %% [markdown]
# On the right the diagonal counts images whose truth came second. Here are the commonest other pairs. Are they
# sensible? The paper, which judges by eye, finds that most guesses behind the first one are, such as other kinds of
# cats for a leopard.

# %%
np.fill_diagonal(second, 0)
for place in second.ravel().argsort()[::-1][:6]:
    t, p = divmod(place, 10)
    share = second[t, p] / (test_labels == t).sum()
    print(f"{subject.classes[t]:10} second: {subject.classes[p]:10} {share:4.0%}")

# %% [markdown]
# ### It has to say something
#
# The ten probabilities add up to 1, whatever the image. There is no class for "none of these". What does the shipped
# network, which knows animals and vehicles, make of a digit (enlarged, in three equal colours), of noise, and of
# nothing, an even grey?

# %%
digit = digits.test_images[0].repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=0)
noise = np.random.default_rng(0).integers(0, 256, digit.shape).astype("uint8")
strangers = np.stack([digit, noise, np.full_like(digit, 128)])
chances = np.exp(shipped.log_probabilities(strangers))
assert np.allclose(chances.sum(axis=1), 1)
titles = "a digit", "noise", "nothing"
plots.predictions(strangers, chances, shipped.classes, titles=titles)

# %% [markdown]
# The bars compare the ten classes with one another. They do not say how sure it is that one of the ten is there at all.
#
# ## Which images are alike: Figure 4, right
#
# The last layer only adds up numbers and compares the sums. So all that the network knows of an image must be in the
# numbers that go into it: its **features**. AlexNet has 4096 of them. `trained.features(images)` gives ours. Two images
# are alike to the network if their features are *near* each other. The distance is the usual one,
# $\sqrt{\sum_i (a_i - b_i)^2}$, also called Euclidean, and for the order its square will do.


# %%
def nearest_rows(queries, rows, count):
    """For each of the queries (Q, D) the numbers of the `count` nearest rows of (N, D)."""
    found = np.empty((len(queries), count), int)
    for q, query in enumerate(queries):
        distances = ((rows - query) ** 2).sum(axis=1)
        found[q] = distances.argsort(kind="stable")[:count]
    return found


train_images, train_labels = data.train_images[:2000], data.train_labels[:2000]
queries, truth = test_images[:100], test_labels[:100]
print("features:", subject.features(queries).shape)


def show_neighbours(describe, queries):
    """The first four queries, each with the six training images nearest to it."""
    found = nearest_rows(describe(queries[:4]), describe(train_images), 6)
    return plots.neighbours(
        queries[:4],
        train_images[found],
        [data.classes[k] for k in truth[:4]],
        [[data.classes[k] for k in train_labels[row]] for row in found],
    )


show_neighbours(subject.features, queries)

# %% [markdown]
# On digits it looks as if the network understood. But would pixels not do as well? And would an untrained network? The
# paper remarks that in pixels its pairs are not near each other. So count for each description of an image how many of
# its five nearest neighbours are of its class. The second column asks the same for queries that are shifted to the right,
# digits by one pixel and photographs by four.


# %%
def moved(images):
    """Shifted to the right; what is missing on the left repeats the edge."""
    by = images.shape[3] // 8
    around = (0, 0), (0, 0), (0, 0), (by, 0)
    return np.pad(images, around, mode="edge")[..., :-by]


def pixels(images):
    return images.reshape(len(images), -1).astype("float32")


def alike(queries, rows):
    """The share of the five nearest rows that are of the query's class."""
    found = nearest_rows(queries, rows, 5)
    return (train_labels[found] == truth[:, None]).mean()


descriptions = {
    "pixels": pixels,
    "untrained features": twin.features,
    "trained features": subject.features,
}
shares = {}
print(f"{'neighbours of the same class':30}{'as they are':>12}{'moved':>10}")
for name, describe in descriptions.items():
    rows = describe(train_images)
    shares[name] = [alike(describe(q), rows) for q in (queries, moved(queries))]
    print(f"{name:30}{shares[name][0]:12.1%}{shares[name][1]:10.1%}")
for other in "pixels", "untrained features":
    assert shares["trained features"][1] > shares[other][1] + 0.05
if data is digits:
    assert min(as_they_are for as_they_are, _ in shares.values()) > 0.9

# %% [markdown]
# With digits the first column takes the picture's charm away: as they are, pixels do as well, and so does a network that
# has learnt nothing. The second column shows what was learnt: after a shift the trained features still find the right
# ones, and the others do not. (How much does that owe to the shifted digits that it has seen in training? Train one with
# `vary=digits.still`, which leaves images as they are, and see.) With photographs pixels fail in both columns. This is
# what pixels find for shifted images, with the class of each above it:

# %%
show_neighbours(pixels, moved(queries))

# %% [markdown]
# ## Which pixels matter
#
# Last question: what in the image made the network say so? The plain way is to try. Cover a window of 3 x 3 pixels with
# the mean (0, once pixels are prepared), look how far the score of the true class falls, and repeat for every place.


# %%
def covered(x):
    """Copies of an image (1, H, W): in each, another window of 3 x 3 pixels is 0."""
    _, H, W = x.shape
    copies = np.repeat(x[None], H * W, axis=0)
    for p in range(H):
        for q in range(W):
            rows = slice(max(0, p - 1), p + 2)
            columns = slice(max(0, q - 1), q + 2)
            copies[p * W + q, :, rows, columns] = 0
    return copies


def score(x, label):
    with mt.no_grad():
        return mine.network.eval()(mt.tensor(x)).numpy()[:, label]


x, label = held_out[0], digits.test_labels[0]
falls = score(x[None], label) - score(covered(x), label)
print(falls.reshape(8, 8).round(1))

# %% [markdown]
# That is one run of the network for each place. The tape has something cheaper. The score is a formula of the pixels,
# so `backward` gives the slope in **every** pixel at once. So far gradients went to weights. Nothing stops them from
# going on to the image, if it is a leaf that wants one. (The weights get theirs as well. No optimizer takes a step
# with them here.)


# %%
def slopes(x, label):
    """How fast the score of the class grows with each pixel of an image (1, H, W)."""
    leaf = mt.tensor(x[None], requires_grad=True)
    mine.network.eval()(leaf)[0, label].backward()
    return leaf.grad.numpy()[0]


slope = slopes(x, label)
print(slope.shape, f"from {slope.min():.2f} to {slope.max():.2f}")

# %% [markdown]
# If the slopes are right, they foretell what happens when pixels change: by slope times change, added up. Covering is
# a large change, for which the slope need not hold (lesson 5), so we try a gentle one as well, in which the window
# only loses a hundredth of itself. For each of 20 digits the cell compares what was foretold with what happened, over
# all 64 places, and prints the *median* of the 20 correlations: the middle one, when they stand in order.

# %%
agreement = {"1 %": [], "all": []}
for x, label in zip(held_out[:20], digits.test_labels):
    slope, copies = slopes(x, label), covered(x)
    foretold = ((x - copies) * slope).sum(axis=(1, 2, 3))
    for name, part in ("1 %", 0.01), ("all", 1.0):
        happened = score(x[None], label) - score(x - part * (x - copies), label)
        agreement[name].append(np.corrcoef(part * foretold, happened)[0, 1])
for name, correlations in agreement.items():
    typical = statistics.median(correlations)
    print(f"the window loses {name:4}: correlation {typical:.2f}")
assert statistics.median(agreement["1 %"]) > 0.9

# %%
figure, axes = plt.subplots(3, 8, figsize=(9, 3.6), layout="constrained")
for column, x, label in zip(axes.T, held_out, digits.test_labels):
    falls = score(x[None], label) - score(covered(x), label)
    limit = np.abs(falls).max()
    column[0].imshow(x[0], cmap="gray")
    column[1].imshow(falls.reshape(8, 8), cmap="bwr", vmin=-limit, vmax=limit)
    column[2].imshow(np.abs(slopes(x, label)[0]), cmap="gray")
for row, name in zip(axes, ("image", "covered", "|slope|")):
    row[0].set_ylabel(name)
    for place in row:
        place.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# In the second row red means that covering the window lowers the score, and blue that it raises it. The third row, the
# sizes of the slopes, is known as a *saliency map*. It takes one way back for all pixels. But it answers another
# question: where would a *small* change move the score? The two correlations above say how far that is from taking
# pixels away.
#
# ## A new task: transfer
#
# Features that tell one set of classes apart may do for other classes. Suppose a network knows the digits 0 to 6, and we
# have only a few images of 7, 8 and 9. Keep all layers but the last as they are (*freeze* them, as one says), and learn a
# new last layer, the *head*. This is **transfer learning**.

# %%
KNOWN = 7  # the classes 0 to 6
known = digits.train_labels < KNOWN
mt.manual_seed(0)
seven = models.build("alexnet_small", KNOWN, digits.image_shape)
train(seven, digits.train_images[known], digits.train_labels[known], EPOCHS)
learnt = Trained("seven", seven, digits.classes[:7], digits.image_shape, preprocessing)

every_image = np.concatenate([digits.train_images, digits.test_images])
every_label = np.concatenate([digits.train_labels, digits.test_labels])
unseen = every_label >= KNOWN
images, labels = every_image[unseen], every_label[unseen] - KNOWN
print(len(images), "images of 7, 8 and 9, which it has never seen")


def draw(each, seed):
    """Numbers of `each` images of every class to learn from, and of all the others."""
    rng = np.random.default_rng(seed)
    mixed = [rng.permutation(np.flatnonzero(labels == k)) for k in range(3)]
    learn = np.concatenate([numbers[:each] for numbers in mixed])
    return learn, np.setdiff1d(np.arange(len(labels)), learn)


learn, rest = draw(20, seed=0)
assert len(learn) == 60 and len(learn) + len(rest) == len(images)

# %% [markdown]
# How does one freeze? The optimizer gets only the parameters of the head. That is enough, and it can be done with less
# work:
#
# - leave the others out of the optimizer: `backward` computes their gradients all the same, for nobody;
# - switch off their `requires_grad` as well: then the way back ends at the head;
# - compute the features once, and train the head by itself on them: then the way forward is short, too.
#
# All three must find the same head. (A `Sequential` that is made of the dictionary from `named_layers` has the same
# layers in it, not copies. `eval()` keeps dropout off, so that the features stay the same.)


# %%
def learn_head(way):
    """The new head's weight, and how many seconds it took."""
    head = nn.Linear(seven.fc4.in_features, 3)
    for parameter in head.parameters():
        init.constant_(parameter, 0.0)  # the same beginning each time
    network = nn.Sequential({**seven.named_layers(), "fc4": head}).eval()
    for parameter in seven.parameters():
        parameter.requires_grad = way != "no gradient"
    x = mt.tensor(preprocessing(images[learn]))
    if way == "features once":
        x, network = mt.tensor(learnt.features(images[learn])), head
    optimizer = optim.SGD(head.parameters(), 0.01, 0.9, weight_decay=0.0005)
    began = time.perf_counter()
    for _ in range(20):
        network.zero_grad()
        F.cross_entropy(network(x), labels[learn]).backward()
        optimizer.step()
    return head.weight.numpy(), time.perf_counter() - began


before = seven.state_dict()  # copies of all weights, by name
heads, times = {}, {}
for way in "left out", "no gradient", "features once":
    heads[way], times[way] = learn_head(way)
    print(f"{way:14}: {1000 * times[way]:6.0f} ms")
    assert np.allclose(heads[way], heads["left out"], atol=1e-4)
for name, was in before.items():
    assert np.array_equal(seven.state_dict()[name], was)  # nothing else has moved
assert times["left out"] > 2 * times["features once"]

# %% [markdown]
# Now, what are the learnt features worth? For comparison, learn a head on the pixels themselves, and one on the
# features of an untrained network. Count how many of all the other images are right. It matters which images one
# happens to draw, so draw five times and take the median of the five. (The three descriptions differ in scale, and a
# learning rate suits one scale. So each is centred and divided by its spread.)

# %%
DRAWS = 5


def head_right(rows, learn, rest):
    """The share right of a head that learns from some of the rows (N, D)."""
    rows = (rows - rows[learn].mean(axis=0)) / rows[learn].std()
    head = nn.Linear(rows.shape[1], 3)
    init.constant_(head.weight, 0.0)
    optimizer = optim.SGD(head.parameters(), 0.01, 0.9, weight_decay=0.0005)
    x = mt.tensor(rows[learn])
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(head(x), labels[learn]).backward()
        optimizer.step()
    guesses = head(mt.tensor(rows[rest])).numpy().argmax(axis=1)
    return (guesses == labels[rest]).mean()


def median_right(rows, each):
    draws = [draw(each, seed) for seed in range(DRAWS)]
    return statistics.median(head_right(rows, *drawn) for drawn in draws)


described = {
    "pixels": pixels,
    "untrained features": untrained(learnt).features,
    "learnt on 0 to 6": learnt.features,
}
tidy = {}
for name, describe in described.items():
    tidy[name] = median_right(describe(images), 20)
    print(f"{name:20}{tidy[name]:8.1%} right, from 20 images of each digit")
assert tidy["learnt on 0 to 6"] < tidy["pixels"] + 0.03

# %% [markdown]
# The learnt features are no better than the pixels. These digits are small and all in their places, and we have seen that
# as they are, their neighbours in pixels do as well. What a network learns is worth something where it is needed. So
# make the task harder: each image of the new digits is shifted by up to one pixel, each in its own direction. And let
# us vary the number of images to learn from.

# %%
SIZES = 1, 3, 5, 10, 20
# seed 1, epoch 0, and the number of each image
shaken = digits.augmentation(images, 1, 0, np.arange(len(images)))
curves = {}
for name, describe in described.items():
    rows = describe(shaken)
    curves[name] = [median_right(rows, each) for each in SIZES]
    print(f"{name:20}" + "".join(f"{share:8.1%}" for share in curves[name]))
few = [np.mean(curve[:3]) for curve in curves.values()]  # up to 5 of each
many = [curve[-1] for curve in curves.values()]
assert few[0] + 0.02 < few[1] < few[2] - 0.04
assert few[2] - few[1] > many[2] - many[1]

# %% [markdown]
# There is the gain. The network has seen shifted digits, and what it has learnt about shifts holds for digits that it has
# not seen. It is large where images are few, and vanishes where they are many.
#
# The alternative is to train **all** layers on the few images. From first weights, or from the learnt ones (this is
# called *fine-tuning*; `load_state_dict` puts copies of weights into a network):


# %%
def whole_right(each, seed, weights=None):
    """The share right of a network whose layers all learn from `each` images."""
    learn, rest = draw(each, seed)
    mt.manual_seed(seed)
    network = models.build("alexnet_small", 3, digits.image_shape)
    if weights is not None:
        own = network.state_dict()
        head = {name: own[name] for name in own if name.startswith("fc4")}
        network.load_state_dict({**weights, **head})
    epochs = 40 if each < 10 else 20  # 40 steps either way
    train(network, shaken[learn], labels[learn], epochs, vary=digits.still)
    with mt.no_grad():
        scores = network(mt.tensor(preprocessing(shaken[rest]))).numpy()
    return (scores.argmax(axis=1) == labels[rest]).mean()


whole = {}
for name, weights in ("from scratch", None), ("fine-tuned", seven.state_dict()):
    for each in 3, 20:
        shares = [whole_right(each, seed, weights) for seed in range(DRAWS)]
        whole[name, each] = statistics.median(shares)
        print(f"all layers {name:12} {each:2} of each: {whole[name, each]:.1%}")
assert whole["fine-tuned", 3] > whole["from scratch", 3]
assert curves["learnt on 0 to 6"][1] > whole["from scratch", 3]
assert whole["fine-tuned", 20] > curves["learnt on 0 to 6"][-1]

# %%
figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
for (name, shares), colour in zip(curves.items(), ("gray", BLUE, RED)):
    axes.plot(SIZES, shares, "o-", color=colour, label=f"head on {name}")
for name, marker in ("from scratch", "s"), ("fine-tuned", "*"):
    shares = [whole[name, each] for each in (3, 20)]
    axes.plot((3, 20), shares, marker, color="black", ms=9, label=f"all layers {name}")
axes.axhline(1 / 3, color="black", ls=":", label="by chance")
axes.set(xscale="log", xlabel="images of each new digit", ylabel="share right")
axes.set_xticks(SIZES, SIZES, minor=False)
axes.minorticks_off()
axes.legend(fontsize=8, ncols=2)
plt.show()

# %% [markdown]
# With 3 images of each digit the learnt layers are what counts: a whole network from scratch is far behind a new head on
# them. With 20 it has caught up, and best is to begin with the learnt layers and train all. (The script
# `benchmarks/transfer.py` compares heads on CIFAR-10, seven classes and then three, and the README has what it found. The
# command for a task of your own is `python -m minitorch_alex.train --init-from RUN --new-head`, and `--freeze conv1,conv2`
# if you want to freeze layers.)
#
# Last, a bolder transfer: the shipped network has seen photographs of aeroplanes and frogs, and never a digit. Enlarge
# the shifted digits to 32 x 32 pixels, give them three equal colours, and learn a head from 20 of each. Its last features
# serve its own ten classes, so take earlier ones, behind the second pooling.

# %%
enlarged = shaken.repeat(4, axis=2).repeat(4, axis=3).repeat(3, axis=1)
right = {"pixels": curves["pixels"][-1]}
for name, trained in ("untrained", shipped_twin), ("learnt on photographs", shipped):
    rows = trained.features(enlarged, "pool2").reshape(len(enlarged), -1)
    right[name] = median_right(rows, 20)
for name, share in right.items():
    print(f"{name:24}{share:8.1%}")
assert right["untrained"] > right["pixels"] + 0.05
gain = right["learnt on photographs"] - right["untrained"]
assert gain < right["untrained"] - right["pixels"]

# %% [markdown]
# It beats the pixels clearly. But look at the line of its untrained twin: most of that comes from convolution, ReLU and
# pooling with any weights. Without this line one would praise the photographs.
#
# ## Summary
#
# - Compare with an untrained network. Only what differs was learnt.
# - First-layer filters can be shown as pictures, each stretched by itself, with 0 as mid-grey. The paper's sorting into grey
#   and coloured comes from its two columns.
# - An activation is what a layer makes of an image. Any filter of the first layer answers most to what looks like it. The
#   deeper a channel lies in a trained network, the more it prefers one class.
# - Probabilities compare the known classes with one another. The confusion matrix counts what is taken for what.
# - What goes into the last layer describes the image. Near in these features means alike to the network, also after a
#   shift that it has learnt to ignore.
# - The tape gives slopes in the pixels as well. And a new last layer on frozen features learns a new task from few images.
#
# ## Exercises
#
# As in lesson 1: write each function, run the cell, then the check below it. `hint("9.1")` helps.
#
# ### 9.1 Filters as pictures (5 minutes)
#
# Write `for_display(weight)`: filters (F, C, R, S) as pictures (F, R, S, C) of numbers from 0 to 1. Each filter is
# stretched as far as possible by itself, with 0 as mid-grey, 0.5. A filter whose taps are all 0 is mid-grey throughout.


# %%
def for_display(weight):
    ### BEGIN SOLUTION
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    largest = np.where(largest == 0, 1, largest)
    return (0.5 + weight / (2 * largest)).transpose(0, 2, 3, 1)
    ### END SOLUTION


# %%
check("9.1", for_display)

# %% [markdown]
# ### 9.2 The confusion matrix, in shares (10 minutes)
#
# Classes are not always equally frequent. Write `confusion(labels, predicted, K)` for two arrays of N whole numbers: a
# matrix (K, K) in whose row t and column p stands which *share* of the images of class t was taken for p. A row of a
# class without images is 0.


# %%
def confusion(labels, predicted, K):
    ### BEGIN SOLUTION
    counts = np.zeros((K, K))
    for truth, guess in zip(labels, predicted):
        counts[truth, guess] += 1
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ### END SOLUTION


# %%
check("9.2", confusion)

# %% [markdown]
# ### 9.3 A classifier without training (15 minutes)
#
# Neighbours can vote. Write `vote(query, rows, labels, count)`: the class that most of the `count` nearest rows have,
# where rows is (N, D), their labels (N,) and the query (D,). If classes have equally many votes, the one among them
# whose row is nearest wins. Rows may hold bytes, such as pixels, and may lie close together and far from 0.


# %%
def vote(query, rows, labels, count):
    ### BEGIN SOLUTION
    differences = rows.astype("float64") - query.astype("float64")
    nearest = (differences**2).sum(axis=1).argsort(kind="stable")[:count]
    votes = np.bincount(labels[nearest])
    return next(k for k in labels[nearest] if votes[k] == votes.max())
    ### END SOLUTION


# %%
check("9.3", vote)

# %% [markdown]
# ### 9.4 A saliency map in colour (10 minutes)
#
# Write `saliency(network, image, label)`: for each pixel of a prepared image, an array (C, H, W), how fast the score of
# the class `label` changes with it: the largest of the sizes of its C slopes. The result is an array (H, W). The network
# maps (N, C, H, W) to scores and is in evaluation mode. Then try it on `shipped.network.eval()` and
# `shipped.preprocessing(photo)`.


# %%
def saliency(network, image, label):
    ### BEGIN SOLUTION
    x = mt.tensor(image[None], requires_grad=True)
    network(x)[0, label].backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)
    ### END SOLUTION


# %%
check("9.4", saliency)

# %% [markdown]
# ### 9.5 A new head (20 minutes)
#
# Write `new_head(network, classes)` for an `nn.Sequential` whose last layer is an `nn.Linear`. It returns an
# `nn.Sequential` that has the same layers, frozen, and in the place of the last one a new `nn.Linear` with that many
# outputs, which can be trained.


# %%
def new_head(network, classes):
    ### BEGIN SOLUTION
    for parameter in network.parameters():
        parameter.requires_grad = False
    layers = network.named_layers()
    last = list(layers)[-1]
    layers[last] = nn.Linear(layers[last].in_features, classes)
    return nn.Sequential(layers)
    ### END SOLUTION


# %%
check("9.5", new_head)

# %% [markdown]
# **Next:** lesson 10 asks how fast all this can be.
