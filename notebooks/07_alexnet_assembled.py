# %% [markdown]
# # 7. AlexNet, assembled
#
# All parts are there: convolutions with groups from lesson 3, pooling, normalisation and dropout from lesson 4, layers
# and learning from lesson 5. Section 3.5 of the paper says in one page how they make up AlexNet. This lesson puts them
# together, counts the result down to the last weight, and looks where its memory and its time go. Then it compares the
# network of the paper with the one that its authors really ran. At the end we read five articles about AlexNet, by
# running what they say.
#
# **Afterwards you can** account for every shape, parameter and millisecond of AlexNet, and read an article about it with
# a critical eye.
#
# You need lessons 3 to 5, and some 3 GB of free memory: this network is large. The lesson takes about 60 minutes.

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
import math
import time
from collections import namedtuple

import matplotlib.pyplot as plt
import numpy as np

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex import models, nn, optim, plots
from minitorch_alex.exercises import check, hint
from minitorch_alex.memory import peak
from minitorch_alex.profiler import aligned, profile
from minitorch_alex.source import source
from minitorch_alex.summary import summary

BLUE, RED = "#3b6fb6", "#c8553d"

# %% [markdown]
# ## Eight layers with weights
#
# AlexNet has five convolutional layers, conv1 to conv5, and three fully connected ones, fc6 to fc8. Behind each but the
# last stands a ReLU. Local response normalisation (*LRN*) follows the ReLUs of conv1 and conv2, and pooling in windows
# of 3 x 3, two pixels apart, comes behind these two and behind conv5. The filters of conv2, conv4 and conv5 see only the
# channels of their own graphics card: two groups.
#
# The paper names no padding. With two pixels in conv2 and one in the three layers after it, these convolutions keep
# height and width, and the sizes of the paper's Figure 2 come out. `nn.Sequential` also takes a dictionary, and then its
# layers have names. `nn.LocalResponseNorm` and `nn.Dropout` are the functions of lesson 4 as layers.

# %%
LRN = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2}  # the paper's formula (lesson 4)
convolutions = {
    "conv1": nn.Conv2d(3, 96, 11, stride=4),
    "relu1": nn.ReLU(),
    "norm1": nn.LocalResponseNorm(**LRN),
    "pool1": nn.MaxPool2d(3, stride=2),
    "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2),
    "relu2": nn.ReLU(),
    "norm2": nn.LocalResponseNorm(**LRN),
    "pool2": nn.MaxPool2d(3, stride=2),
    "conv3": nn.Conv2d(256, 384, 3, padding=1),
    "relu3": nn.ReLU(),
    "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2),
    "relu4": nn.ReLU(),
    "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2),
    "relu5": nn.ReLU(),
    "pool5": nn.MaxPool2d(3, stride=2),
}

# %% [markdown]
# Behind pool5 there are 256 channels of 6 x 6 pixels, laid out as one row. Dropout works on the outputs of the first two
# fully connected layers, and fc8 gives the 1000 scores.

# %%
fully_connected = {
    "flatten": nn.Flatten(),
    "fc6": nn.Linear(256 * 6 * 6, 4096),
    "relu6": nn.ReLU(),
    "drop6": nn.Dropout(0.5),
    "fc7": nn.Linear(4096, 4096),
    "relu7": nn.ReLU(),
    "drop7": nn.Dropout(0.5),
    "fc8": nn.Linear(4096, 1000),
}
ours = nn.Sequential({**convolutions, **fully_connected})

# %% [markdown]
# That is all of AlexNet. The engine has it among its `models`. `repr` of a network, the text that `print` shows, has every
# layer with its settings. So we can compare the two as texts, and the shapes of all parameters besides. To compare what
# they compute, we give ours the weights of the other: `state_dict` copies all parameters by name, and `load_state_dict`
# puts them in where names and shapes fit. `eval()` says that a network is to be used and not trained, so that dropout
# does nothing.
#
# The input shall be like the paper's: pixels of 0 to 255, less their mean. Random coloured squares will do.

# %%
rng = np.random.default_rng(0)
colours = rng.uniform(0, 255, (2, 3, 19, 19))
# np.kron makes a square of 12 x 12 pixels out of each number
pictures = np.kron(colours, np.ones((12, 12)))[:, :, :227, :227]
pixels = (pictures - pictures.mean()).astype("float32")
figure, axes = plt.subplots(1, 2, figsize=(6, 2.6), layout="constrained")
for place, picture in zip(axes, pictures):
    place.imshow(picture.transpose(1, 2, 0).astype("uint8"))
    place.axis("off")
plt.show()
print(f"{pixels.shape}, mean {abs(pixels.mean()):.0f}, spread {pixels.std():.0f}")

# %%
mt.manual_seed(0)
network = models.build("alexnet", 1000).eval()
assert repr(ours) == repr(network)
for a, b in zip(ours.parameters(), network.parameters(), strict=True):
    assert a.shape == b.shape

ours.load_state_dict(network.state_dict())
with mt.no_grad():
    scores = network(mt.tensor(pixels)).numpy()
    assert np.allclose(ours.eval()(mt.tensor(pixels)).numpy(), scores)
untrained = F.cross_entropy(mt.tensor(scores), np.array([0, 1])).item()
print(f"scores {scores.shape}, loss {untrained:.2f}, ln 1000 = {math.log(1000):.2f}")
assert abs(untrained - math.log(1000)) < 1
del ours, convolutions, fully_connected  # 61 million weights: 233 MiB

# %% [markdown]
# It knows nothing yet, so its loss is near ln 1000 (lesson 5). Here is the same network as a picture. A block is high
# where the maps are large, and deep where there are many channels. (To keep the small ones visible, it draws square roots
# of heights and logarithms of depths.)

# %%
plots.architecture(network, (3, 227, 227))

# %% [markdown]
# ## A line per layer
#
# `summary` sends an image through a network and notes what each layer makes of it. Three columns count:
#
# - **parameters**: the numbers that training changes;
# - **multiply-accumulates**: how often a weight is multiplied with an input and the product added to a sum, for one
#   image. Only convolutions and fully connected layers do it in any number;
# - **activations**: the memory that the layer's output takes for one image, with 4 bytes a number.

# %%
told = summary(network, (3, 227, 227))
told

# %% [markdown]
# ### Counting it ourselves
#
# Where do these numbers come from? Lesson 3 has the formula of the size. A filter has one weight for each pixel and
# channel of its window, and one bias; in G groups it sees only C / G of the C channels. It uses each of its weights once in
# every window. And a fully connected layer is a convolution too: one with a filter as large as the map, so that it fits
# in one place only.

# %%
with mt.no_grad():
    maps = mt.tensor(rng.standard_normal((1, 256, 6, 6)).astype("float32"))
    as_filters = network.fc6.weight.reshape(4096, 256, 6, 6)
    by_filters = F.conv2d(maps, as_filters, network.fc6.bias).numpy()
    by_matrix = network.fc6(network.flatten(maps)).numpy()
print(by_filters.shape, "and", by_matrix.shape)
assert np.allclose(by_filters[:, :, 0, 0], by_matrix, atol=1e-4)

# %% [markdown]
# So all of AlexNet is a table with six columns, and one short function goes through it. (A pool has 0 filters, and
# so it costs nothing. `None` stands for a filter as large as the map.)

# %%
ALEXNET = [  # name, filters, size, stride, padding, groups
    ("conv1", 96, 11, 4, 0, 1),
    ("pool1", 0, 3, 2, 0, 1),
    ("conv2", 256, 5, 1, 2, 2),
    ("pool2", 0, 3, 2, 0, 1),
    ("conv3", 384, 3, 1, 1, 1),
    ("conv4", 384, 3, 1, 1, 2),
    ("conv5", 256, 3, 1, 1, 2),
    ("pool5", 0, 3, 2, 0, 1),
    ("fc6", 4096, None, 1, 0, 1),
    ("fc7", 4096, None, 1, 0, 1),
    ("fc8", 1000, None, 1, 0, 1),
]
Row = namedtuple("Row", "name channels size parameters products")


def account(table, n, rounded=math.floor):
    """What each row makes of a coloured image of n x n pixels, and what it costs."""
    rows, channels = [], 3
    for name, filters, size, stride, padding, groups in table:
        size = size or n  # None: as large as the map
        taps = size**2 * channels // groups
        n = rounded((n + 2 * padding - size) / stride) + 1
        channels = filters or channels  # a pool keeps them
        costs = filters * (taps + 1), filters * taps * n**2
        rows.append(Row(name, channels, n, *costs))
    return rows


# %%
rows = account(ALEXNET, 227)
for row in rows:
    shape = f"{row.channels} x {row.size} x {row.size}"
    print(f"{row.name:6}{shape:>13}{row.parameters:13,}{row.products:14,}")
layers = {layer.path: layer for layer in told.layers}
for row in rows:
    layer = layers[row.name]
    counted = layer.parameters, layer.multiply_accumulates
    assert counted == (row.parameters, row.products)
    assert math.prod(layer.output_shape) == row.channels * row.size**2


# %%
def totals(rows):
    """Parameters and multiply-accumulates of all rows together."""
    return sum(row.parameters for row in rows), sum(row.products for row in rows)


parameters, products = totals(rows)
print(f"{parameters:,} parameters, {products:,} multiply-accumulates")
assert (parameters, products) == (60_965_224, 724_406_816)

# %% [markdown]
# The paper says "60 million parameters", and these are they. It also says "650,000 neurons", its word for what we called
# units: the outputs of the eight layers. The caption of its Figure 2 gives them layer by layer. Let us add up:

# %%
CAPTION = [253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
units = [row.channels * row.size**2 for row in rows if "pool" not in row.name]
for printed, right in zip(CAPTION, units, strict=True):
    print(f"{printed:8,} {right:8,}", "" if printed == right else "<-- not the same")
print(f"{sum(CAPTION):8,} {sum(units):8,}")
assert units[0] == 96 * 55 * 55 and CAPTION[0] == 96 * 55 * 48
assert abs(sum(units) - 650_000) < abs(sum(CAPTION) - 650_000)
assert units[1:] == CAPTION[1:] and round(sum(units), -4) == 660_000

# %% [markdown]
# The first number of the caption has a slip: 96 x 55 x 48 for 96 x 55 x 55. (The paper's 650,000 is neither of the two
# sums. It is nearer to ours.) Keep that in mind for the end of this lesson. Whoever writes down so many numbers gets
# one wrong, and a table that is *computed* finds it.
#
# ## 224 or 227: equal shapes are not equal functions
#
# Lesson 3 met the riddle: the paper's 224 pixels give 54 windows, not 55, if the number is rounded down. Which sizes give
# 55?


# %%
def sizes_that_give(outputs, rounded):
    conv1 = ALEXNET[:1]
    return [n for n in range(11, 300) if account(conv1, n, rounded)[0].size == outputs]


fits = {"down": sizes_that_give(55, math.floor), "up": sizes_that_give(55, math.ceil)}
for name, sizes in fits.items():
    print(f"rounded {name}: {sizes}")
assert fits == {"down": [227, 228, 229, 230], "up": [224, 225, 226, 227]}

# %% [markdown]
# The authors' program rounds up, so 224 is right for it, and 227 too. (But it cuts the same border from all sides of
# 256 pixels, which leaves an even number: never 227.) A window that hangs over the edge reads zeros there. That is the
# same as three rows and columns of zeros at the bottom and at the right, which `F.pad` adds: it takes the numbers of
# columns at the left and right, then of rows at the top and bottom. Other programs have 224 with padding 2 all around.
# All three give 55 x 55. Do they give the same?

# %%
image = mt.tensor(pixels[:1])
cut = image[:, :, :224, :224]
with mt.no_grad():
    of_227 = network.conv1(image).numpy()[0]
    zeros_behind = network.conv1(F.pad(cut, (0, 3, 0, 3))).numpy()[0]
    zeros_around = network.conv1(F.pad(cut, (2, 2, 2, 2))).numpy()[0]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
others = {"zeros behind (rounded up)": zeros_behind, "padding 2": zeros_around}
differs = {}
for place, (name, of_224) in zip(axes, others.items()):
    differs[name] = np.abs(of_224 - of_227).max(axis=0) > 1e-3
    place.imshow(differs[name], cmap="gray_r", vmin=0, vmax=1)
    place.set(title=f"224, {name}: {differs[name].sum()} of 3025 differ")
plt.show()
edge, everywhere = differs.values()
assert edge[54].all() and edge[:, 54].all() and not edge[:54, :54].any()
assert everywhere.mean() > 0.99

# %% [markdown]
# Black are the places at which conv1 answers something else than for 227 pixels. Rounding up concerns the last row and
# column alone. With padding 2 every window begins two pixels earlier, so that nothing is the same. This matters to
# weights that were trained in one program and are used in another. Equal shapes let them in without a complaint.
#
# ## Two cards
#
# Which part of the network sees which? Raise one channel of conv1's output on the second card, number 90 of 0 to 95,
# and look which channels of the later layers change. `getattr(network, "conv2")` is `network.conv2`.


# %%
def through(network, x, names):
    """Send an array through the layers of these names."""
    x = mt.tensor(x)
    with mt.no_grad():
        for name in names.split():
            x = getattr(network, name)(x)
    return x.numpy()


def changed_channels(network, channel, names):
    """Which channels change behind these layers if one is raised before them."""
    raised = first.copy()
    raised[:, channel] += 1000
    change = through(network, raised, names) - through(network, first, names)
    return np.flatnonzero((np.abs(change) > 1e-3).any(axis=(0, 2, 3)))


first = through(network, pixels[:1], "conv1 relu1")
REACHED = {
    "norm1": [5, 88, 92],
    "norm1 pool1 conv2": [128, 128, 255],
    "norm1 pool1 conv2 relu2 norm2 pool2 conv3": [384, 0, 383],
}
for names, reached in REACHED.items():
    found = changed_channels(network, 90, names)
    print(f"{names.split()[-1]}: {len(found)} channels, {found.min()} to {found.max()}")
    assert [len(found), found.min(), found.max()] == reached

# %% [markdown]
# In norm1 it reaches its neighbours, in conv2 all filters of its own card and no other, and in conv3 everything: there
# the cards exchange what they have. What would it cost to let all filters see all channels?

# %%
one_card = [(*row[:5], 1) for row in ALEXNET]
for name, table in ("two groups", ALEXNET), ("one group", one_card):
    sums = totals(account(table, 227))
    print(f"{name:10}: {sums[0]:,} parameters, {sums[1]:,} multiply-accumulates")
assert totals(account(one_card, 227)) == (62_378_344, 1_135_256_096)
by_name = {row.name: row for row in account(one_card, 227)}
for row in rows:
    if by_name[row.name] != row:
        print(f"{row.name}: {row.parameters:,} or {by_name[row.name].parameters:,}")

# %% [markdown]
# Only 1.4 million parameters more, but over half as much work again. These two pairs of numbers are worth knowing: an
# account of AlexNet may describe the network with two groups and count the one with one. We shall meet one that does.
#
# ## Where the parameters are, and where the work is

# %%
weighty = [row for row in rows if row.parameters]
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
for shift, colour, name, whole in (
    (-0.2, BLUE, "parameters", parameters),
    (0.2, RED, "products", products),
):
    shares = [100 * getattr(row, name) / whole for row in weighty]
    bars = ax.bar(np.arange(8) + shift, shares, 0.4, color=colour)
    ax.bar_label(bars, fmt="%.1f", fontsize=8)
ax.set(ylabel="share of the whole (%)", xticks=range(8), ylim=(0, 70))
ax.set_xticklabels(row.name for row in weighty)
ax.legend(["parameters", "multiply-accumulates"])
plt.show()
for row in weighty:
    print(f"{row.name}: each weight is used in {row.size**2:5,} windows of an image")

# %% [markdown]
# Parameters and work live in different places. A convolution uses each weight in every window, 3025 times in conv1. A
# fully connected layer uses it once. So the five convolutions have hardly any of the parameters and nearly all of the
# work, and fc6 alone has most parameters:


# %%
def convolutions_share(rows):
    """In percent, of the parameters and of the multiply-accumulates."""
    part = totals([row for row in rows if "conv" in row.name])
    return [100 * a / b for a, b in zip(part, totals(rows), strict=True)]


shares = convolutions_share(rows)
print("convolutions: {:.2f} % of the parameters, {:.2f} % of the work".format(*shares))
fc6 = rows[8]
print(f"fc6: {fc6.parameters / parameters:.0%} of the parameters")
assert shares[0] < 4 and shares[1] > 91 and fc6.parameters > parameters / 2

# %% [markdown]
# ## Where the memory goes
#
# In training each parameter needs three numbers: itself, its gradient and its velocity (lesson 5). That does not depend
# on the number of images. What the gradients need of the way forward has to be kept for every image: about one array of
# the size of each layer's output. Counted plainly:

# %%
outputs = sum(layer.activation_bytes for layer in told.layers)
for N in 1, 16, 128:
    fixed, growing = 3 * 4 * parameters, N * outputs
    print(
        f"{N:3} images: weights, gradients, velocities {fixed / 2**20:.0f} MiB, "
        f"outputs of all layers {growing / 2**20:6,.0f} MiB"
    )

# %% [markdown]
# The engine can say it more exactly without taking the step. `peak` looks at what is on the tape, operation by
# operation, and finds the moment at which most is alive: on the way back outputs are given up as gradients are
# finished. (*Buffers* is what the backend itself needs while it works, such as the columns of lesson 3.)

# %%
for N in 1, 16, 128:
    moment = peak(network, (3, 227, 227), N)
    print(f"{N} images: {moment.total / 2**20:,.0f} MiB, at {moment.name}")
    print("   ", moment)
    assert moment.weights == moment.velocities == 4 * parameters
    assert 0.5 < moment.total / (12 * parameters + N * outputs) < 2.5

# %% [markdown]
# With one image nearly everything is weights, and the moment is that at which they move. With the paper's 128 the images
# take as much as the weights or more. The paper's cards had 3 GB each, and its program needed two of them (section 3.2).
#
# ## Where the time goes
#
# Take the time of each layer on the way forward, plainly, for a small batch. The first pass warms up (code is compiled,
# memory is fetched), and of three more the shortest counts. The last column is the speed: how many multiply-accumulates
# a second.

# %%
IMAGES = 8
batch = np.concatenate([pixels] * (IMAGES // 2 + 1))[:IMAGES]


def seconds_of_layers(network, x):
    taken = {}
    with mt.no_grad():
        for name, layer in network.named_layers().items():
            began = time.perf_counter()
            x = layer(x)
            taken[name] = time.perf_counter() - began
    return taken


passes = [seconds_of_layers(network, mt.tensor(batch)) for _ in range(4)]
best = {name: min(taken[name] for taken in passes[1:]) for name in layers}
for name, seconds in best.items():
    share = seconds / sum(best.values())
    speed = layers[name].multiply_accumulates * IMAGES / seconds / 1e9
    rate = f"{speed:8.1f} billion a second" if speed else ""
    print(f"{name:8}{1000 * seconds:8.2f} ms {share:6.1%} {rate}")

# %% [markdown]
# The numbers are your machine's. Three things to look at:
#
# - The convolutions do 92 % of the work. Do they take as much of the time? The speeds in the last column differ.
# - Layers without any multiply-accumulates take time as well. LRN, pooling and even ReLU have to fetch every number from
#   memory and bring one back.
# - In fc6 the speed depends on how many images there are. Its 38 million weights have to be fetched once, for one image
#   or for many, and for few images that is what takes the time. Here is how much an image costs:

# %%
features = np.abs(rng.standard_normal((64, 9216))).astype("float32")
with mt.no_grad():
    for N in 1, 4, 16, 64:
        x, taken = mt.tensor(features[:N]), []
        for _ in range(5):
            began = time.perf_counter()
            network.fc6(x)
            taken.append(time.perf_counter() - began)
        print(f"{N:2} images: {1000 * min(taken) / N:6.2f} ms for each")

# %% [markdown]
# A training step also goes back and moves the weights. `profile` takes such steps and times every layer on both ways.
# (On a GPU taking the time needs more care, since Python does not wait for it; `profile` does that too.) The last
# columns compare with what this machine can do at most. They are the subject of lesson 10; look at the milliseconds now.
# "The rest" is in no layer.

# %%
optimizer = optim.SGD(
    network.parameters(), 1e-4, 0.9, weight_decay=0.0005, form="paper"
)
labels = rng.integers(0, 1000, IMAGES)
step = profile(network.train(), optimizer, batch, labels)
print("\n".join(aligned(step.table())))
network.eval().zero_grad()
del optimizer  # velocities and gradients: 466 MiB

# %%
of_kind = {}  # shares of the time
for row in step.rows:
    kind = row.kind or row.path
    of_kind[kind] = of_kind.get(kind, 0) + row.milliseconds / step.milliseconds
for kind, share in of_kind.items():
    print(f"{kind:18}{share:6.1%}")
assert abs(sum(of_kind.values()) - 1) < 1e-6

# %% [markdown]
# How long would the paper's training take here? It went through 1.2 million images some 90 times, with batches of 128
# and in five to six days on its two cards.

# %%
here = 1000 * IMAGES / step.milliseconds
print(f"here {here:.0f} images a second: {90 * 1.2e6 / here / 86400:,.0f} days")
for days in 5, 6:
    print(f"in {days} days: {90 * 1.2e6 / days / 86400:.0f} images a second")
assert step.milliseconds > 0

# %% [markdown]
# ## The network that was run
#
# So far we built what the paper says. The authors' program has been published since, with a file of settings for each
# experiment and the errors it reached. Behind the paper's numbers for a single network stands the experiment with the
# number 145. It has the same eight layers, and other things between them. The engine has it as `alexnet_2012`:

# %%
source(models.alexnet_2012)

# %% [markdown]
# The docstring lists the differences. Let us see what they do. **The first weights**, to begin with:

# %%
actual = models.build("alexnet_2012", 1000).eval()
print("layer   spread of the weights   bias")
for name in (row.name for row in weighty):
    layer = getattr(actual, name)
    spread, bias = layer.weight.numpy().std(), layer.bias.numpy()
    print(f"{name:8}{spread:.3f}{bias.min():21.0f}")
    expected = 0.03 if name in ("conv3", "conv4", "conv5") else 0.01
    assert abs(spread / expected - 1) < 0.05
    assert (bias == (name in ("conv2", "conv4", "conv5", "fc6", "fc7"))).all()

# %% [markdown]
# The paper gives all weights a spread of 0.01. The file of settings has 0.03 in conv3 to conv5. The biases agree with
# the paper: 1 in five layers, so that their ReLUs let something through from the start.
#
# **The same weights** fit into both networks, and the two answer differently:

# %%
actual.load_state_dict(network.state_dict())
with mt.no_grad():
    cut = pixels[:1, :, :224, :224]
    print("2012: ", actual(mt.tensor(cut)).numpy()[0, :5].round(3))
    print("paper:", network(mt.tensor(pixels[:1])).numpy()[0, :5].round(3))
ours, theirs = network.named_layers(), actual.named_layers()
print("new:", [name for name in theirs if name not in ours])
for name in ours:
    if repr(ours[name]) != repr(theirs[name]):
        print(f"{name}: {ours[name]}\n    -> {theirs[name]}")
assert [repr(a.shape) for a in network.parameters()] == [
    repr(a.shape) for a in actual.parameters()
]

# %% [markdown]
# **The order.** In 2012 conv1 is followed by LRN, then pooling, then the ReLU. Pooling and ReLU may change places: the
# largest of some numbers, negative ones set to 0, is the largest of the numbers with negative ones set to 0. LRN and ReLU
# may not. If LRN comes first, a strongly *negative* neighbour damps a channel too. (With these small weights LRN would do
# little, as lesson 4 showed. So we make the responses ten times as large.)

# %%
signed = mt.tensor(10 * through(network, pixels[:1], "conv1"))
pool_last = F.max_pool2d(F.relu(signed), 3, 2).numpy()
relu_last = F.relu(F.max_pool2d(signed, 3, 2)).numpy()
assert np.array_equal(pool_last, relu_last)

lrn_last = network.norm1(F.relu(signed)).numpy()
relu_last = F.relu(network.norm1(signed)).numpy()
positive = lrn_last > 0
damped = relu_last[positive] / lrn_last[positive]
print(f"with LRN first, positive responses become {damped.mean():.2f} times as large")
assert damped.max() < 1 + 1e-5 and damped.mean() < 0.95

# %% [markdown]
# **The windows of LRN** end at the border between the cards. Channel 48 is the first of the second card. Raise it again,
# and see how far it reaches:

# %%
first = through(network, pixels[:1], "conv1 relu1")
across = changed_channels(network, 48, "norm1")
within = changed_channels(actual, 48, "norm1")
print("paper:", across, " 2012:", within)
assert list(across) == [46, 47, 48, 49, 50] and list(within) == [48, 49, 50]

# %% [markdown]
# **A third normalisation**, which the paper does not mention, follows the second. It divides each pixel by the strength
# of the 5 x 5 pixels around it in its *own* channel, where LRN looks at the same pixel in five channels. Raise one number
# of many and count the results that change:

# %%
x = np.ones((1, 12, 9, 9), "float32")
raised = x.copy()
raised[0, 3, 4, 4] = 1000
for name in "norm2", "spatial2":
    change = through(actual, raised, name) != through(actual, x, name)
    _, channels, down, along = (len(set(places)) for places in np.nonzero(change))
    print(f"{name}: {channels} channels, {down} x {along} pixels")
    expected = (5, 1, 1) if name == "norm2" else (1, 5, 5)
    assert (channels, down, along) == expected

# %% [markdown]
# **The coefficient of LRN** is divided by the size of the window before it is used, as lesson 4 told. **Dropout** scales
# in testing, not in training. Both are settings of the layers, and so is the rule for tied maxima in pooling.

# %%
for name, net in ("paper", network), ("2012", actual):
    coefficient = net.norm1.alpha / net.norm1.size
    print(f"{name:6}{coefficient:.0e} times the sum of squares, k = {net.norm1.k}")
    print(f"      {net.drop6}, {net.pool1}")
assert np.isclose(network.norm1.alpha / 5, 1e-4)
assert np.isclose(actual.norm1.alpha / 5, 2e-5) and actual.drop6.form == "paper"
del actual, theirs, net  # 233 MiB

# %% [markdown]
# **The learning rates.** The paper says that all layers had the same one, which was divided by ten three times. The file
# of experiment 145 shows at which epoch it was changed. Towards the end conv1 learned at a tenth of the others' rate,
# and then not at all:

# %%
RATES = [  # from this epoch on: the rate of conv1, and that of all others
    (1, 1e-2, 1e-2),
    (25, 1e-3, 1e-3),
    (51, 1e-4, 1e-4),
    (67, 1e-5, 1e-4),
    (72, 0, 1e-4),
    (79, 0, 1e-5),
]
starts = [start for start, _, _ in RATES] + [91]
unequal = 0
for (start, conv1, others), end in zip(RATES, starts[1:], strict=True):
    unequal += (end - start) * (conv1 != others)
    print(f"epochs {start:2} to {end - 1:2}: conv1 {conv1:g}, others {others:g}")
print(f"the rates differ in {unequal} of 90 epochs")
assert unequal == 24

# %% [markdown]
# **The errors.** AlexNet was built for a yearly contest on photographs from the collection *ImageNet*. There are 1.2
# million to learn from, in 1000 classes. The others are held out, in two parts: the *validation images*, whose classes
# are published, and the *test images*. In 2012 only the organisers knew the classes of these. Each file ends with the
# share of held-out images that the network got wrong: with one guess (*top-1*), and with five (*top-5*). The paper's
# three comparisons are differences between such files:

# %%
LOGGED = {  # experiment: top-1 and top-5 error
    "145": (0.406640, 0.182100),
    "148, no normalisation": (0.420340, 0.193620),
    "147, pools of 2 x 2": (0.410580, 0.185100),
    "145 on data of 2010": (0.374727, 0.169987),
    "half of it, one card": (0.391680, 0.182287),
}
PAPER = {
    ("148, no normalisation", "145"): (1.4, 1.2),
    ("147, pools of 2 x 2", "145"): (0.4, 0.3),
    ("half of it, one card", "145 on data of 2010"): (1.7, 1.2),
}
for (without, full), said in PAPER.items():
    worse = 100 * (np.array(LOGGED[without]) - LOGGED[full])
    print(f"{without:24}{worse.round(2)} points worse, the paper says {said}")
    assert tuple(worse.round(1)) == said

# %% [markdown]
# **The famous 15.3 %**, the top-5 error with which AlexNet won in 2012, are no error of this network. They are what
# seven networks reached together, whose probabilities were averaged. The official list of results of 2012 names them by
# their experiments. Three have a sixth convolution and learned from more images before (141 and the two 146), two have
# another path beside the first layers (131 and 137), and two are experiment 145 in two runs. The paper's Table 2 has
# the errors:

# %%
TOP_5 = {  # the paper's Table 2, top-5 errors: validation images, test images
    "1 network": (18.2, None),
    "5 networks": (16.4, 16.4),
    "7 networks, more images": (15.4, 15.3),
    "the next best entry": (None, 26.2),
}
SEVEN = ["141", "146.2009", "146.2011", "131", "137", "145", "145f"]
for name, (validation, test) in TOP_5.items():
    print(f"{name:25}{validation or '':>6}{test or '':>6}")
like_the_paper = [name for name in SEVEN if name.startswith("145")]
print(f"of the seven {len(like_the_paper)} have the paper's eight layers")
assert len(SEVEN) == 7 and like_the_paper == ["145", "145f"]
assert round(100 * LOGGED["145"][1], 1) == TOP_5["1 network"][0]

# %% [markdown]
# ## Five articles
#
# Most people meet AlexNet in an article. Five of them, found on the web, are our last subject:
#
# 1. an introduction with a program for Keras (a popular library of layers);
# 2. a chapter of a series on famous networks, with a table of shapes and a program for Keras;
# 3. a walk through the layers, with a program for Keras;
# 4. an overview in ten points, without a program;
# 5. a summary of the paper, without a program.
#
# They are good at what an introduction is for. All say what was new, and all get the outline right. They were written to
# help, and every slip below is one that anyone makes who writes from memory or from another article, the author of a
# lesson included. The paper's caption has one as well. So this is no list of faults to laugh about. It is an exercise:
# **take a statement, ask which number would be different if it were not so, and compute that number.** Most rows need a
# line or two.
#
# Two of the programs use *batch normalisation* (Ioffe and Szegedy, 2015). It brings each channel to mean 0 and spread 1
# over the images of a batch, and then multiplies it and adds to it a learned number. For testing it keeps an average of
# these means and spreads, two further numbers for each channel that are not trained. And they use two words of Keras:
# "valid" is no padding, "same" is as much as it takes to get `n / stride` outputs, rounded up.
#
# The engine has the three programs' networks. We count them, keep what their layers are like, and let go of the weights.

# %%
PROGRAMS = {1: "keras_valid_bn", 2: "keras_same_bn", 3: "keras_plain"}
lines, shapes, weightless = {}, {}, {}  # by article, then by layer or parameter
for article, name in PROGRAMS.items():
    program = models.build(name, 1000)
    counted = summary(program, models.MODELS[name].image_shape).layers
    lines[article] = {layer.path: layer for layer in counted}
    shapes[article] = {path: p.shape for path, p in program.named_parameters()}
    weightless[article] = {
        path: layer
        for path, layer in program.named_layers().items()
        if not list(layer.parameters())
    }
    filters = [shapes[article][f"conv{k}.weight"][0] for k in range(1, 6)]
    print(f"article {article}: filters {filters}, as in the paper")
    assert filters == [row.channels for row in rows if "conv" in row.name]
del program, counted

# %% [markdown]
# ### One at length
#
# The third article lists conv2 with 27 x 27 pixels in, filters of 5 x 5, padding 1, and 27 x 27 pixels out. What would be
# different if that were so? The size, by the formula:

# %%
with_padding_1 = [(*row[:4], 1, 1) if row[0] == "conv2" else row for row in one_card]
literal = account(with_padding_1, 227)
for row in literal[1:9]:
    shape = f"{row.channels} x {row.size} x {row.size}"
    print(f"{row.name:6}{shape:>13}{row.parameters:13,}")
print(f"{totals(literal)[0]:,} parameters")
assert literal[2].size == 25 and totals(literal)[0] == 50_844_008

# %% [markdown]
# So padding 1 and 27 x 27 cannot both be right. Which one is? Look for another statement of the same article that
# decides it. Its next rows go on from 27. Its program asks for "same", which is 2 here. And with padding 1 the last pool
# would leave 5 x 5 pixels, and the whole would not come near 60 million parameters. So the 1 is the slip, and a reader
# who types the list into a program pays for it. Three steps: *what follows from the statement, compute it, and see which
# other statement decides*.
#
# Now the same for everything that we found, in short. A row has the articles' numbers, what they say (in our words, or
# in brackets what they leave out), what we compute about it, and the result. `claim` prints a row and checks its result.
# There are many rows, because the list is meant to be complete. Nobody has to go through all of them: run the cells, and
# of each take one or two statements that you would have believed. Ask yourself what you would compute before you look at
# what the cell does.


# %%
def claim(articles, says, computed, result, found):
    """One row. `result` must be what we found when this lesson was written."""
    assert result == found, (says, result)
    result = f"{result:,}" if type(result) is int else result
    print(f"{articles:6}{says:34}{computed:40}{result}")


def size(article, layer):
    return lines[article][layer].output_shape[-1]


def kinds(article, word):
    """How many layers of such a kind a program has."""
    return sum(word in layer.kind for layer in lines[article].values())


# %% [markdown]
# ### How many parameters?
#
# The paper's 60 million are right, for two groups. None of the programs has groups. A number from one source beside a
# program from another is how most of these rows came about. (Keras counts the averages of batch normalisation among the
# parameters, and so do we.)

# %%
trained, whole = {}, {}
for article, layers_of in lines.items():
    trained[article] = sum(layer.parameters for layer in layers_of.values())
    normed = [layer for layer in layers_of.values() if "BatchNorm" in layer.kind]
    averages = sum(2 * layer.output_shape[0] for layer in normed)
    whole[article] = trained[article] + averages

claim("1", "60 million parameters", "parameters of its program", whole[1], 28_075_752)
ten_classes = whole[1] - 990 * (4096 + 1)
claim("1", "", "... with ten classes", ten_classes, 24_019_722)
claim("2", "about 60 million", "parameters of its program", whole[2], 62_416_616)
claim("2", "", "... of these trained", trained[2], 62_397_480)
claim("3", "60 million", "parameters of its program", whole[3], 62_378_344)
seen = {shapes[article]["conv2.weight"][1] for article in PROGRAMS}
claim("1 2 3", "(groups)", "channels that conv2 sees (paper: 48)", seen, {96})

# %%
one, two = account(one_card, 227), account(ALEXNET, 227)
(p1, m1), (p2, m2) = totals(one), totals(two)
millions = [round(p / 1e6, 2) for p in (p1, p2)]
claim("5", "62.3 million, two cards", "in one group, in two", millions, [62.38, 60.97])
billions = [round(m / 1e9, 2) for m in (m1, m2)]
claim("5", "1.1 billion computations", "in one group, in two", billions, [1.14, 0.72])
operations = round(2 * m1 / 1e9, 2)
claim("5", "", "... counting additions as well", operations, 2.27)
percent = [round(share, 2) for share in convolutions_share(one)]
claim("5", "convolutions: 6 %, 95 %", "one group", percent, [6.01, 94.84])
percent = [round(share, 2) for share in convolutions_share(two)]
claim("5", "", "two groups", percent, [3.83, 91.91])

# %% [markdown]
# The fifth article describes the two cards with care, and its four numbers are all right: for the network with one group.
#
# ### Which shapes?
#
# The quickest check of any table: does each size follow from the one above it?

# %%
claim("1", "224 pixels, no padding", "size of conv1 (paper: 55)", size(1, "conv1"), 54)
names = ["pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]
chain = [size(1, name) for name in names]
claim("1", "(no padding at all)", "sizes after it", chain, [27, 17, 8, 6, 4, 2, 1])
filters = shapes[1]["conv2.weight"][2:]
claim("1", "(conv2's filters)", "sizes (paper: 5)", filters, (11, 11))
units, inputs = shapes[1]["fc6.weight"]
claim("1", "fc6 has 224 * 224 * 3 inputs", "inputs that arrive", inputs, 256)
claim("1", "", "weights of fc6", units * inputs, 1_048_576)
units, inputs = shapes[3]["fc6.weight"]
claim("1", "", "... in the paper", units * inputs, 37_748_736)
pool = weightless[1]["pool1"]
pool = pool.kernel_size, pool.stride
claim("1", "pools of 3 x 3, two apart ...", "in its program", pool, (2, 2))
worse = 100 * (np.array(LOGGED["147, pools of 2 x 2"]) - LOGGED["145"])
worse = worse.round(1).tolist()
claim("1", "... which gain 0.4 and 0.3", "147 less 145", worse, [0.4, 0.3])

# %%
claim("2", "conv1 has 57 x 57", "227 / 4 rounded up (paper: 55)", size(2, "conv1"), 57)
claim("2", "first pool: 16 x 16", "in its program (and next row)", size(2, "pool1"), 28)
claim("2", "last pool: 13 x 13", "in its program (and next row)", size(2, "pool5"), 6)
claim("3", "conv2: padding 1, 27 x 27", "size with padding 1", literal[2].size, 25)
inputs = literal[7].channels * literal[7].size ** 2
claim("3", "", "... inputs of fc6 then", inputs, 6400)
claim("3", "", "... parameters then", totals(literal)[0], 50_844_008)
claim("3", "", "... size in its program", size(3, "conv2"), 27)
learned = sum(layer.parameters > 0 for layer in lines[3].values())
claim("3", "12 layers", "layers that learn", learned, 8)
claim("3", "images of 227", "fit, rounded up", fits["up"], [224, 225, 226, 227])
alone = account([("conv1", 96, 11, 1, 0, 1)], 227)[0].size
claim("4", "filters (no stride, no padding)", "size of conv1 then", alone, 217)
found = [62_378_344, 60_965_224]
claim("4", "(groups)", "parameters, with one and with two", [p1, p2], found)
claim("4", "(rates, crops, first weights)", "times a rate changed", len(RATES) - 1, 5)
for pool in 3, 2:
    n = 55
    chain = [n := (n - pool) // 2 + 1 for _ in range(3)]
    claim("5", "overlap shrinks it", f"pools of {pool} x {pool}", chain, [27, 13, 6])

# %% [markdown]
# The last two rows: windows of 2 x 2 that do not overlap shrink the maps just as much. So it is the stride that makes
# them smaller, not the overlap.
#
# ### What is inside?
#
# The paper's normalisation is LRN. Batch normalisation came three years later, and took its place in many accounts. It
# does not go well *behind* dropout: the averages that it keeps in training are those of values that were dropped or scaled
# up, and in testing none are.

# %%
lrn = [kinds(article, "LocalResponseNorm") for article in PROGRAMS]
claim("1 2 3", "(LRN)", "such layers in their programs", lrn, [0, 0, 0])
norms = [kinds(article, "Norm") for article in PROGRAMS]
claim("1", "(any normalisation)", "batch norms in its program", norms[0], 7)
claim("2", "LRN, with an explanation", "batch norms in its program", norms[1], 7)
claim("3", "(any normalisation)", "norms in its program", norms[2], 0)
norms = {layer.kind for layer in told.layers if "Norm" in layer.kind}
claim("4", "batch norm is part of it", "AlexNet's norms", norms, {"LocalResponseNorm"})
claim("4", "", "years from AlexNet to batch norm", 2015 - 2012, 3)
order = " ".join([path for path in lines[2] if path.endswith("1")][1:])
claim("2", "(the order)", "in its program", order, "conv1 relu1 bn1 pool1 drop1")
order = " ".join(path for path in lines[1] if path.endswith("1"))
claim("1", "(the order)", "in its program", order, "conv1 relu1 pool1 bn1")
order = " ".join(path for path in lines[1] if path.endswith("6"))
claim("1", "", "... further on", order, "fc6 relu6 drop6 bn6")
x = F.relu(mt.tensor(rng.standard_normal(100_000)))
mt.manual_seed(0)
ratio = F.dropout(x, 0.4).numpy().var() / x.numpy().var()
claim("1", "", "variance there, training / testing", round(float(ratio), 1), 2.0)


# %%
def dropouts(article):
    layers = weightless[article].values()
    return [layer.p for layer in layers if isinstance(layer, nn.Dropout)]


claim("1", "dropout of 0.5", "in its program", dropouts(1), [0.4, 0.4])
found = [0.25, 0.25, 0.25, 0.5, 0.5]
claim("2", "dropout of 0.5 for each unit", "in its program", dropouts(2), found)
claim("3", "(dropout)", "in its program", dropouts(3), [0.5, 0.5])
units = [layers[name].output_shape[0] for name in ("flatten", "relu6", "relu7")]
claim("5", "dropout before fc6 and fc7", "units there", units[:2], [9216, 4096])
claim("5", "", "... behind them, as in the paper", units[1:], [4096, 4096])
lost = round(int((scores[0] < 0).sum()), -2)
claim("4 5", "a ReLU behind every layer", "scores below 0 behind fc8, about", lost, 500)


# %%
def response(level):
    """What LRN makes of five equal channels, in the middle one. As in 2012."""
    x = mt.tensor(np.full((1, 5, 1, 1), level))
    return F.local_response_norm(x, 5, alpha=1e-4, k=2).numpy()[0, 2, 0, 0]


quiet = round(response(2.0) / response(1.0), 2)
loud = round(response(2000.0) / response(1000.0), 2)
claim("4", "LRN: changes matter less", "twice a quiet input", quiet, 2.0)
claim("4", "", "twice a loud input", loud, 0.72)
worse = 100 * (np.array(LOGGED["148, no normalisation"]) - LOGGED["145"])
worse = worse.round(1).tolist()
claim("2", "LRN makes training faster", "fewer errors: 148 less 145", worse, [1.4, 1.2])

# %% [markdown]
# A ReLU behind fc8 would make all scores below 0 equal, and pass no gradient back to them. The fourth article also says
# that LRN is a competition between neighbours, which is right (lesson 4). But what it makes of a stronger input depends on
# how strong it is already.
#
# ### How was it trained?
#
# Here the question is often: *of what* is a number? The paper's "six times" is about epochs, of a network with four
# layers, until 25 % error on the training images of CIFAR-10, a set of small photographs. It compares both at the same
# error. And dropout takes about twice the *steps*. The time of a step is another thing. Would it be six times as long with
# tanh? We know the ReLUs' share of a step, so it is enough to compare the two functions. And if dropout doubled the time
# of a step, it would take half of it.

# %%
relu, drop = of_kind["ReLU"], of_kind["Dropout"]
x, shortest = mt.tensor(first), {}
for bend in F.relu, F.tanh:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        bend(x)
        times.append(time.perf_counter() - began)
    shortest[bend] = min(times)
longer = 1 - relu + relu * shortest[F.tanh] / shortest[F.relu]
text = f"a step with tanh: {longer:.1f} times as long"
claim("1 5", "ReLU: training 6 times as fast", text, longer < 6, True)
FIGURE_1 = {"ReLU": (1, 25), "tanh": (6, 25)}  # epochs (in proportion), error in %
errors = [error for _, error in FIGURE_1.values()]
claim("4", "ReLU for its accuracy", "errors compared in Figure 1", errors, [25, 25])
text = f"it takes {drop:.0%} of a step: below 1/2"
claim("5", "dropout doubles the time", text, drop < 1 / 2, True)

# %% [markdown]
# Crops: a window of n pixels fits at 256 - n + 1 places along an axis, the first and the last included. The paper's own
# 32 x 32 x 2 = 2048 has the same slip by one, which happens to everybody who counts. Its program draws from 33 places.

# %%
places = {n: len(range(256 - n + 1)) ** 2 for n in (227, 224)}
claim("2", "841 crops of 227 pixels", "places in 256 x 256", places[227], 900)
claim("2", "1682 with the mirrored ones", "... mirrored as well", 2 * places[227], 1800)
claim("2", "", "... of the paper's 224", 2 * places[224], 2178)

photographs = rng.integers(0, 256, (IMAGES, 3, 256, 256), dtype="uint8")
began = time.perf_counter()
for photograph in photographs:
    top, left = rng.integers(0, 33, 2)
    crop = photograph[:, top : top + 224, left : left + 224]
    crop = (crop[:, :, ::-1] if rng.random() < 0.5 else crop).astype("float32")
took = 1000 * (time.perf_counter() - began)
text = f"a batch: {took:.1f} ms, less than a step"
claim("2", "augmenting slows learning down", text, took < step.milliseconds, True)

# %% [markdown]
# The paper says that cropping costs nothing, since the processor does it while the cards compute, and says nothing of
# slower learning. Next: how strong is a weight decay? Keras adds `r` times the sum of squares to the loss. The gradient of
# that is 2 r w, so `r` is half of what the paper calls the decay. (In Keras it is written `l2(r)`. To learn the training
# images by heart is called *overfitting*, and whatever works against it is *regularisation*. Weight decay is one kind,
# dropout another.)

# %%
w = mt.tensor(np.array([3.0, -0.5]), requires_grad=True)
(0.0002 * (w * w).sum()).backward()
decay = round((w.grad.numpy() / w.numpy())[0], 6)
claim("2", "l2(0.0002)", "gradient / weight (paper: 0.0005)", decay, 0.0004)
steps = (RATES[1][0] - 1) * 1_200_000 // 128  # of experiment 145 at the rate 0.01
pull = 0.0005 * 0.01  # decay times rate
rule = [[0.9, -pull], [0.9, 1 - pull]]  # from (v, w) to the next (v, w), without slope
left = f"{np.linalg.matrix_power(rule, steps)[1, 1]:.0e}"
claim("5", "dropout, no regularisation", "its decay leaves of a weight", left, "1e-05")
w, v, slope = 2.0, 0.1, 3.0
v = 0.9 * v - pull * w - 0.01 * slope
claim("5", "the rule (its symbols are lost)", "one step, w", round(w + v, 5), 2.05999)
claim("5", "one learning rate for all layers", "epochs with two rates", unequal, 24)
per_second = [round(90 * 1.2e6 / days / 86400) for days in (6, 5)]
claim("5", "6 days (paper: 5 to 6)", "images a second", per_second, [208, 250])

# %% [markdown]
# The colours: the second article says openly that it leaves out how they are changed. It takes three lines. Photographs'
# colours vary most along the axis from dark to light, less along two others. A random step along each, with a tenth of its
# spread, is added to a whole image (more of it in lesson 8). These are the numbers of the authors' program, for red,
# green and blue. (*Trackers*, in the last row, follow an object through a film, and so they have to say where it is.)

# %%
AXES = np.array(
    [[0.418, -0.713, -0.564], [-0.817, -0.024, -0.576], [0.397, 0.701, -0.592]]
)
SPREADS = np.array([19.7, 37.1, 121.8])
noise = np.sqrt(((0.1 * SPREADS * AXES) ** 2).sum(axis=1)).round(1).tolist()
claim("2", "(change of colours)", "spread: red, green, blue", noise, [7.4, 7.2, 7.7])
each = round(parameters / 1.2e6)
claim("4", "pools end overfitting", "parameters per training image", each, 51)
names = " ".join(network.named_layers())
same = np.array_equal(through(network, pixels, names), through(network, pixels, names))
claim("4", "tunes itself at run time", "two passes give the same scores", same, True)
text = f"loss of a new one {untrained:.2f}: above 6"
claim("4", "comes with weights from ImageNet", text, untrained > 6, True)
claim("4", "trackers are like this", "scores and nothing else", len(scores[0]), 1000)

# %% [markdown]
# ### The rest
#
# How good it was, who came before, and whether a program runs as it stands. (The third one does.) LeNet is a network
# that read digits in 1998. The last two rows are about letters. They say nothing about how good an article is, and are
# here only because the list is meant to be complete.

# %%
claim("1 4 5", "AlexNet: 15.3 % top-5 error", "networks averaged", len(SEVEN), 7)
claim("1 4 5", "", "... one alone (validation)", TOP_5["1 network"][0], 18.2)
ahead = round(26.172 - 15.315, 3)  # from the official list
claim("4", "10.8 points ahead of the next", "the official list", ahead, 10.857)
of_2010 = [round(100 * error, 1) for error in LOGGED["145 on data of 2010"]]
claim("5", "... beside 37.5 and 17.0 %", "one network, 2010", of_2010, [37.5, 17.0])

lenet = summary(models.build("lenet5", 10), (1, 32, 32)).layers
convolving = [layer.path for layer in lenet if layer.is_convolution]
claim("3", "LeNet has two convolutions", "it has", convolving, ["c1", "c3", "c5"])
colour = mt.tensor(np.zeros((1, 3, 32, 32), "float32"))
found = nn.Conv2d(3, 6, 5)(colour).shape
claim("3", "LeNet: grey images only", "3 channels in c1 give", found, (1, 6, 28, 28))

# %%
USED = {  # names from elsewhere
    "1": "Sequential Conv2D Activation MaxPooling2D BatchNormalization Flatten Dense "
    "Dropout num_classes",
    "2": "Sequential Conv2D Activation MaxPooling2D BatchNormalization Flatten Dense "
    "Dropout K l2",
}
for article, names in USED.items():
    unknown = [name for name in names.split() if name not in globals()]
    found = {"1": 9, "2": 10}[article]
    claim(article, "a program, no imports", "unknown names", len(unknown), found)
garbled = "\N{EM DASH}".encode().decode("cp1253")
claim("3", "(three odd characters)", "a dash, its bytes read as Greek", len(garbled), 3)
letters = len("descent") - len("decent")
claim("4", "gradient 'decent'", "letters lost", letters, 1)

# %% [markdown]
# The statement of the fifth article about 15.3 % is one of *five guesses*, in *2012*, by *seven networks*; 37.5 and 17.0
# are one guess and five, in 2010, by one. Numbers are compared only if all of this is the same.
#
# One statement we leave open: that a year later all entries of the competition used such networks. No number of this
# lesson can decide it. It would take the list of entries, and a single one without a convolution would refute it. To know
# what one has *not* checked is part of the exercise.
#
# The rows also show what is right. How far is the third program from the paper's network?

# %%
paper = {path: p.shape for path, p in network.named_parameters()}
print("missing:", [layer.path for layer in told.layers if layer.path not in lines[3]])
for path, shape in paper.items():
    if shapes[3][path] != shape:
        print(f"{path}: {shapes[3][path]} for {shape}")
assert set(layers) - set(lines[3]) == {"norm1", "norm2"} and set(lines[3]) < set(layers)

# %% [markdown]
# Two layers of LRN, two groups in three convolutions, and the first weights: that is all.
#
# ## Summary
#
# - AlexNet is a table of eleven rows. One formula gives all its sizes, and two products give its 60,965,224 parameters and
#   724,406,816 multiply-accumulates. Without the two groups it would be 62,378,344 and 1,135,256,096.
# - The convolutions have 4 % of the parameters and 92 % of the work, since they use each weight in every window. fc6
#   alone has most of the parameters.
# - In training each parameter takes three numbers, and each image about one for every output of every layer.
# - Equal shapes are not equal functions: 224 rounded up, 224 with padding 2 and 227 give the same sizes.
# - The network that was run differs from the paper's: LRN before the ReLU and within each card, a third normalisation,
#   other first weights, a rate of its own for conv1. And 15.3 % took seven networks.
# - Read any account of a network, this one too, with the question: which number can I compute?
#
# ## Exercises
#
# As in lesson 1: write each function, run the cell, then the check below it. `hint("7.1")` helps.
#
# ### 7.1 Which images fit? (10 minutes)
#
# Write `images_for(outputs, kernel, stride, up)`: the smallest and the largest number of pixels along an axis, as a
# tuple, for which there are exactly `outputs` windows of `kernel` pixels, `stride` apart, without padding. If `up` is
# true, the number of windows is rounded up, otherwise down. (For 55 windows of conv1 the lesson has both answers.)


# %%
def images_for(outputs, kernel, stride, up):
    ### BEGIN SOLUTION
    exact = (outputs - 1) * stride + kernel  # where nothing is left over
    return (exact - stride + 1, exact) if up else (exact, exact + stride - 1)
    ### END SOLUTION


# %%
check("7.1", images_for)

# %% [markdown]
# ### 7.2 What a convolution costs (10 minutes)
#
# Write `cost(channels, filters, kernel, outputs, groups)` for a convolution of `channels` channels by `filters` filters of
# `kernel` x `kernel` pixels in `groups` groups, whose output has `outputs` x `outputs` pixels. Return the numbers of its
# parameters (biases included) and of its multiply-accumulates for one image (without biases), as a tuple.


# %%
def cost(channels, filters, kernel, outputs, groups):
    ### BEGIN SOLUTION
    taps = channels // groups * kernel**2
    return filters * (taps + 1), filters * taps * outputs**2
    ### END SOLUTION


# %%
check("7.2", cost)

# %% [markdown]
# ### 7.3 A reader of tables (15 minutes)
#
# An article prints a table of sizes. Write `slips(pixels, table)`, which says which rows do not follow from what is
# printed above them. `pixels` is the printed size of the input, and `table` a list of rows `(printed, kernel, stride,
# padding)`, one for each convolution or pool, of which `printed` is the size that the article gives for its output.
# Numbers of windows are rounded down. Return a list of the numbers of such rows, counted from 0.
#
# (Compare each row with the size *printed* above it. So a slip that the author did not carry on shows twice: in its own
# row, and in the next, which follows from the right number.)


# %%
def slips(pixels, table):
    ### BEGIN SOLUTION
    found, n = [], pixels
    for i, (printed, kernel, stride, padding) in enumerate(table):
        if (n + 2 * padding - kernel) // stride + 1 != printed:
            found.append(i)
        n = printed
    return found
    ### END SOLUTION


# %%
check("7.3", slips)

# %% [markdown]
# ### 7.4 The memory of a step (10 minutes)
#
# Write `training_bytes(image, outputs, parameters, batch)`, counted plainly as in the lesson: weights, gradients and
# velocities for `parameters` parameters, and for each of `batch` images the image itself and the outputs of all layers.
# `image` is a shape such as (3, 227, 227), `outputs` a list of such shapes, each for one image. A number takes 4 bytes.


# %%
def training_bytes(image, outputs, parameters, batch):
    ### BEGIN SOLUTION
    for_an_image = sum(math.prod(shape) for shape in [image, *outputs])
    return 4 * (3 * parameters + batch * for_an_image)
    ### END SOLUTION


# %%
check("7.4", training_bytes)

# %% [markdown]
# ### 7.5 Another AlexNet (25 minutes)
#
# In 2014 one of the authors described a variant in a single column (the work is known as "one weird trick"), and PyTorch's
# library torchvision has it under the name AlexNet. Write `one_column(classes, units)`, which returns it as an
# `nn.Sequential` for images of 3 x 224 x 224:
#
# - five convolutions with 64, 192, 384, 256 and 256 filters of 11, 5, 3, 3 and 3 pixels, all in one group, each with a
#   ReLU behind it. The first has stride 4 and padding 2, and the padding of the others keeps height and width;
# - max-pooling, 3 x 3 and two apart, behind the ReLUs of the first, second and fifth. No LRN;
# - `nn.Flatten`, and then three fully connected layers: `units`, `units` and `classes` outputs. The first two have a
#   ReLU behind them, and dropout of 0.5 stands *before* each of these two.
#
# torchvision has 4096 units and 1000 classes; the check takes fewer. How many parameters are that, and how does
# `summary(one_column(1000, 4096), (3, 224, 224))` compare with the table above?


# %%
def one_column(classes, units):
    ### BEGIN SOLUTION
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, units),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    )
    ### END SOLUTION


# %%
check("7.5", one_column)

# %% [markdown]
# **Next:** the network is built and accounted for. In lesson 8 networks like it are trained on photographs.
