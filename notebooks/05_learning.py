# %% [markdown]
# # 5. Learning
#
# So far we can compute a network and its gradients. This lesson makes it learn. The pieces are spread over the paper:
# the ReLU is in section 3.1, the last layer's 1000 scores become probabilities in section 3.5, and section 5 gives the
# rule by which the weights move (batches of 128 images, momentum 0.9, weight decay 0.0005) and how they begin: as
# random numbers of spread 0.01. Most of them can be seen at work on small images in a few seconds.
#
# **Afterwards you can** train a network on handwritten digits, say what each line of a training loop is for, and tell
# from the loss why a network does not learn.
#
# You need lessons 1 to 4, the exponential and the logarithm. The lesson takes about 60 minutes.

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

import matplotlib.pyplot as plt
import numpy as np

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex import init, nn, optim, plots
from minitorch_alex.backends import Backend
from minitorch_alex.data import Preprocessing, load
from minitorch_alex.exercises import check, hint
from minitorch_alex.functional.activation import log_softmax_of
from minitorch_alex.gradcheck import gradcheck
from minitorch_alex.progress import progress_bar
from minitorch_alex.source import source

BLUE, RED = "#3b6fb6", "#c8553d"

# %% [markdown]
# ## From scores to probabilities
#
# A network that sorts images into K classes ends with K numbers per image, its *scores*: the higher, the more it
# believes in that class. To judge them we need probabilities, which are positive and add up to 1. The exponential makes
# anything positive, and a division makes the sum right. This is the **softmax**:
#
# $$p_k = \frac{e^{x_k}}{\sum_j e^{x_j}}$$


# %%
def softmax_naive(scores):
    """(N, K) scores -> (N, K) probabilities: one row for each image."""
    e = np.exp(scores)
    return e / e.sum(axis=1, keepdims=True)


scores = np.array([[2.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
print(softmax_naive(scores).round(3))
assert np.allclose(softmax_naive(scores).sum(axis=1), 1)
assert np.allclose(softmax_naive(scores), F.softmax(mt.tensor(scores), dim=1).numpy())

# %% [markdown]
# The formula is right and the program is not. The largest number that a computer's usual fractions hold is about
# $10^{308}$, and $e^{1000}$ is far beyond. It becomes infinity, and infinity divided by infinity is no number at all.

# %%
large = np.array([[1000.0, 999.0, 997.0]])
with np.errstate(all="ignore"):  # NumPy would warn
    print("largest possible: ", np.finfo("float64").max)
    print("e to these powers:", np.exp(large))
    print("naive softmax:    ", softmax_naive(large))
    assert np.isnan(softmax_naive(large)).all()

# %% [markdown]
# The way out: **subtract the largest score of each row first**. That changes nothing, because
# $e^{x_k - m} = e^{x_k} e^{-m}$, and the factor $e^{-m}$ stands above and below the fraction line. Now the largest power
# is $e^0 = 1$, and nothing can overflow.

# %%
shifted = softmax_naive(large - 1000)
print(shifted.round(3))
assert np.allclose(shifted, F.softmax(mt.tensor(large), dim=1).numpy())
assert np.allclose(softmax_naive(scores), softmax_naive(scores - 50))

# %% [markdown]
# ## How surprised: cross entropy
#
# Now one number that says how wrong the network is. Look at the probability $p$ that it gave to what turned out to be
# true, and take $-\log p$ (the natural logarithm): the *surprise*. Who was certain and right is not surprised. Who gave
# the truth one chance in a thousand is surprised a lot.

# %%
for p in 1.0, 0.5, 0.1, 0.001:
    print(f"the truth had probability {p:5}: surprise {-np.log(p) + 0:.3f}")

# %% [markdown]
# The mean surprise over all images is the **cross entropy**, and it is the network's *loss*: the number that training
# makes small. The true classes are given as *labels*, whole numbers from 0 to K - 1.


# %%
def cross_entropy_naive(scores, labels):
    """(N, K) scores, (N,) labels -> the mean surprise."""
    p = softmax_naive(scores)
    of_the_truth = p[np.arange(len(labels)), labels]
    return -np.log(of_the_truth).mean()


labels = np.array([0, 2])
print(cross_entropy_naive(scores, labels))
assert np.isclose(
    cross_entropy_naive(scores, labels), F.cross_entropy(mt.tensor(scores), labels)
)

# %% [markdown]
# **What is the loss of a network that knows nothing?** It gives each of K classes the probability 1/K, and its loss is
# $-\log(1/K) = \ln K$. These are numbers to know by heart. If a loss stays at 2.303 with ten classes, or at 6.908 with
# the paper's thousand, the network has learnt nothing yet. (`item()` takes the number out of a tensor that holds one.)

# %%
for K in 10, 1000:
    loss = F.cross_entropy(mt.tensor(np.zeros((1, K))), np.array([0]))
    print(f"{K:4} classes: {loss.item():.3f}")
    assert np.isclose(loss.item(), math.log(K))

# %% [markdown]
# There is a second trap. A score can be so low that its probability rounds to 0, and $-\log 0$ is infinite. So the
# logarithm is taken on paper, before anything is rounded:
#
# $$\log p_k = x_k - \log \sum_j e^{x_j}$$
#
# The engine computes that, with the largest score subtracted. It is called the *log softmax*.

# %%
source(log_softmax_of)

# %%
hopeless = np.array([[0.0, -2000.0]])
truth = np.array([1])
with np.errstate(divide="ignore"):
    print("naive: ", cross_entropy_naive(hopeless, truth))
print("engine:", F.cross_entropy(mt.tensor(hopeless), truth).item())
assert F.cross_entropy(mt.tensor(hopeless), truth).item() == 2000

# %% [markdown]
# ### Its gradient
#
# Write the loss of one image with the true class $t$ as above and take the derivative for each score:
#
# $$L = \log \sum_j e^{x_j} - x_t \qquad\Longrightarrow\qquad
# \frac{\partial L}{\partial x_k} = \frac{e^{x_k}}{\sum_j e^{x_j}} - [k = t] = p_k - [k = t]$$
#
# where $[k = t]$ is 1 for the true class and 0 for the others. A row with a single 1 like this is called *one-hot*. So
# the gradient is **the probabilities minus the one-hot truth**, and divided by N, because the loss is a mean over N
# images. Going downhill raises the true score and lowers every other one, the more the more probable it seemed.

# %%
x = mt.tensor(scores, requires_grad=True)
F.cross_entropy(x, labels).backward()
one_hot = np.eye(3)[labels]  # row k of the identity matrix has its 1 at place k
print(x.grad.numpy().round(3))
assert np.allclose(x.grad.numpy(), (softmax_naive(scores) - one_hot) / len(labels))


# %%
def loss_of_four(scores):
    return F.cross_entropy(scores, np.array([2, 0, 2, 1]))


report = gradcheck(loss_of_four, (4, 3))
assert report
report

# %% [markdown]
# ## Layers and networks
#
# A layer is a function that owns weights. Its class is a `Module`: it makes its weights in `__init__`, as `Parameter`,
# and computes in `forward`. A parameter is a tensor that requires a gradient and may be changed by training. Here is the
# layer that multiplies by a matrix. The paper calls it *fully connected*, since each output looks at every input.

# %%
rng = np.random.default_rng(0)


class FullyConnected(nn.Module):
    """(N, I) -> (N, O): y = x w^T + b with the weight w (O, I) and the bias b (O,)."""

    def __init__(self, inputs, outputs):
        self.weight = nn.Parameter(0.1 * rng.standard_normal((outputs, inputs)))
        self.bias = nn.Parameter(np.zeros(outputs))

    def forward(self, x):
        return x @ self.weight.T + self.bias


ours = FullyConnected(3, 2)
for name, parameter in ours.named_parameters():
    print(name, parameter.shape)
x = mt.tensor(rng.standard_normal((5, 3)))
assert np.allclose(ours(x).numpy(), F.linear(x, ours.weight, ours.bias).numpy())

# %% [markdown]
# `Module` finds the parameters among the attributes, also those of modules inside modules. `ours(x)` calls `forward`.
# The engine's own version of this layer is `nn.Linear`. There is a module for each function that you know: `nn.Conv2d`
# and `nn.Linear` have weights, `nn.ReLU`, `nn.MaxPool2d` and `nn.Flatten` (which lays each image out as one row) have
# none. `nn.Sequential` puts them one behind the other, and is as plain as this:

# %%
source(nn.Sequential.forward)

# %%
mt.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
print(network)
for name, parameter in network.named_parameters():
    print(name, parameter.shape)

# %% [markdown]
# This network takes images of 64 pixels and gives ten scores, for ten digits. `nn.ReLU` between the two layers sets
# negative numbers to 0. It has to be there: without something that bends, two layers would be one matrix product after
# another, which is a single matrix product.
#
# ## The digits
#
# The engine brings 1,797 real handwritten digits of 8 x 8 pixels. It learns from four fifths of them. The rest is *held
# out*: the network never learns from these images, so they show what it makes of digits that it has not seen.

# %%
digits = load("digits")
print("to learn from:", digits.train_images.shape, digits.train_images.dtype)
print("held out:     ", digits.test_images.shape)
figure, axes = plt.subplots(1, 10, figsize=(9, 1.3), layout="constrained")
for k, place in enumerate(axes):
    place.imshow(digits.train_images[k, 0], cmap="gray")
    place.set_title(digits.train_labels[k])
    place.axis("off")
plt.show()

# %% [markdown]
# Pixels are numbers from 0 to 255. A layer adds up many of them, so that scores would be far apart and the network very
# sure of itself, before it knows anything. So subtract the mean, as the paper does (section 2; it has a mean for each
# place of the image, here one number will do), and divide by the spread, so that typical numbers are about 1.
# `Preprocessing.of` computes both **from the training images only**: nothing about the held-out ones may leak in.

# %%
preprocessing = Preprocessing.of(digits.train_images)
print(preprocessing)
images, labels = preprocessing(digits.train_images), digits.train_labels
held_out, held_out_labels = preprocessing(digits.test_images), digits.test_labels
print(f"mean {images.mean():.4f}, spread {images.std():.4f}")
assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3

with mt.no_grad():
    for name, pixels in (
        ("raw", digits.train_images.astype("float32")),
        ("prepared", images),
    ):
        loss = F.cross_entropy(network(mt.tensor(pixels)), labels).item()
        print(f"{name:8} pixels: the loss begins at {loss:6.3f}")
print(f"knowing nothing: {math.log(10):.3f}")

# %% [markdown]
# ## One step downhill
#
# The gradient says for each weight in which direction the loss rises, so go the other way, by a small amount:
#
# $$w \leftarrow w - \epsilon \, \frac{\partial L}{\partial w}$$
#
# $\epsilon$ is the *learning rate*. This is *gradient descent*. A tensor's array is its `data`; a step replaces it. How
# large may the rate be? Try a few, always from the same beginning.

# %%
beginning = [parameter.data for parameter in network.parameters()]
x = mt.tensor(images)
for rate in 0.01, 0.1, 1.0, 10.0:
    network.zero_grad()  # forget the gradients: backward() adds to what is there
    before = F.cross_entropy(network(x), labels)
    before.backward()
    for parameter in network.parameters():
        parameter.data = parameter.data - rate * parameter.grad.data
    after = F.cross_entropy(network(x), labels)
    print(f"rate {rate:5}: loss {before.item():.3f} -> {after.item():.3f}")
    assert after.item() < before.item() or rate > 1
    for parameter, data in zip(network.parameters(), beginning, strict=True):
        parameter.data = data

# %% [markdown]
# The slope holds only nearby. A small step gains little, a large one overshoots and ends up higher than it began. So a
# rate is found by trying, and the step is taken many times.
#
# ### Batches
#
# Each step above looked at all training images. AlexNet has 1.2 million, and takes 128 for each step: a *batch*. Does
# the slope of a few images point the same way as that of all? The cosine of the angle between two directions tells: it
# is 1 where they agree and 0 where they are at right angles. (`np.linalg.norm` is the length of a direction, and `@` of
# two directions of length 1 is the cosine.)


# %%
def direction(chosen):
    """The gradient of all weights for these images, divided by its length."""
    network.zero_grad()
    F.cross_entropy(network(mt.tensor(images[chosen])), labels[chosen]).backward()
    row = np.concatenate([p.grad.numpy().reshape(-1) for p in network.parameters()])
    return row / np.linalg.norm(row)


N = len(images)
of_all = direction(np.arange(N))
rng = np.random.default_rng(0)
for count in 1, 8, 32, 128:
    cosines = [direction(rng.permutation(N)[:count]) @ of_all for _ in range(20)]
    print(f"{count:4} of {N} images: cosine {np.mean(cosines):.2f} on average")
    assert np.mean(cosines) > 0.5 or count < 32

# %% [markdown]
# A small part of the work shows most of the way. So take many rough steps instead of a few exact ones. That is
# *stochastic* gradient descent: "random", since the images of each batch are drawn at random. An *epoch* is one pass
# through all images, in an order that is shuffled anew each time. If the images came sorted, zeros first, each batch
# would pull towards its own digit.


# %%
def batches(count, size, rng):
    """Image numbers for the batches of one epoch."""
    order = rng.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


sizes = [len(chosen) for chosen in batches(N, 32, rng)]
print(len(sizes), "batches, the last has", sizes[-1], "images")
assert sum(sizes) == N

# %% [markdown]
# Compare the two after one epoch. The single step through all images went furthest with the rate 1. The 45 steps get a
# smaller one, since their directions are rougher.

# %%
for size, rate in (N, 1.0), (32, 0.1):
    for parameter, data in zip(network.parameters(), beginning, strict=True):
        parameter.data = data
    for chosen in batches(N, size, rng):
        network.zero_grad()
        F.cross_entropy(network(mt.tensor(images[chosen])), labels[chosen]).backward()
        for parameter in network.parameters():
            parameter.data = parameter.data - rate * parameter.grad.data
    loss = F.cross_entropy(network(mt.tensor(images)), labels).item()
    print(f"batches of {size:4}: loss {loss:.3f} after one epoch")
assert loss < 1

# %% [markdown]
# ## Momentum
#
# Many losses look like a long narrow valley: steep across, almost level along. The steep walls allow only a small rate,
# and with that the way along the floor takes for ever. Here is such a valley with two weights, 100 times as steep in one
# as in the other:
#
# $$L(w) = \tfrac12 \left( w_1^2 + 100 \, w_2^2 \right)$$
#
# The cure is to let the weights roll like a ball. They have a *velocity* $v$, which keeps nine tenths of itself at each
# step. Along the valley the slopes agree and add up, to ten times as much. Across it they change sign, so there the
# velocity cannot build up.

# %%
steepness = np.array([1.0, 100.0])


def descend(w, rate, momentum, steps):
    """All points on the way down the valley."""
    v, path = np.zeros(2), [w]
    for _ in range(steps):
        slope = steepness * w
        v = momentum * v - rate * slope
        w = w + v
        path.append(w)
    return np.array(path)


start = np.array([-10.0, 1.0])
plain = descend(start, rate=0.018, momentum=0.0, steps=60)
rolling = descend(start, rate=0.018, momentum=0.9, steps=60)
faster = descend(start, rate=0.021, momentum=0.0, steps=60)
for name, path in (
    ("plain, rate 0.018", plain),
    ("plain, rate 0.021", faster),
    ("momentum, rate 0.018", rolling),
):
    loss = (steepness * path[-1] ** 2).sum() / 2
    print(f"{name:20}: loss after 60 steps {loss:12.3f}")

# %%
w1, w2 = np.meshgrid(np.linspace(-11, 5, 200), np.linspace(-2.1, 2.1, 100))
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for place, path, colour in (axes[0], plain, BLUE), (axes[1], rolling, RED):
    place.contour(w1, w2, (w1**2 + 100 * w2**2) / 2, levels=12, colors="lightgray")
    place.plot(*path.T, ".-", color=colour, linewidth=0.8)
    place.plot(0, 0, "k+", markersize=12)
    place.set(xlabel="$w_1$", ylim=(-2.1, 2.1))
axes[0].set(title="plain: 60 steps", ylabel="$w_2$")
axes[1].set_title("with momentum 0.9: 60 steps")
plt.show()

# %% [markdown]
# Without momentum the rate cannot go above 2/100: at 0.021 each step across lands higher on the other wall. With
# momentum the way along the floor is several times as fast. The price is in the picture: it swings across the valley
# for longer, and it rolls past the goal before it comes back.
#
# The paper's rule has one more term, the *weight decay*, which pulls each weight towards 0 by a tiny fraction of
# itself, so that only those stay large which are needed. (On our small digits it makes hardly a difference, and no cell
# here shows one. The paper says that with it even the error on the *training* images was lower.)
#
# $$v \leftarrow 0.9 \, v - 0.0005 \, \epsilon \, w - \epsilon \, \frac{\partial L}{\partial w}, \qquad w \leftarrow w + v$$
#
# This is the engine's version. Its optimizer is called `optim.SGD`, *stochastic gradient descent*, and `form="paper"`
# asks for this rule. It keeps its settings in `param_groups`, a list of dictionaries, of which we have one. Without
# decay it goes the way that `descend` went:

# %%
source(Backend.sgd_paper)


# %%
def engine_path(rate_at, steps, **settings):
    """All points on the way down the valley, by optim.SGD. rate_at(step): the rate."""
    w = nn.Parameter(start)
    optimizer, path = optim.SGD([w], **settings), [start]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate_at(step)
        optimizer.zero_grad()
        loss = 0.5 * (mt.tensor(steepness) * w * w).sum()
        loss.backward()
        optimizer.step()
        path.append(w.numpy().copy())
    return np.array(path)


path = engine_path(lambda step: 0.018, 60, momentum=0.9, form="paper")
assert np.allclose(path, rolling)

# %% [markdown]
# PyTorch writes the same rule in another way. Its velocity collects slopes, and the rate comes in last:
#
# $$v \leftarrow 0.9 \, v + \text{slope}, \qquad w \leftarrow w - \epsilon \, v$$
#
# (The slope includes the decay, $0.0005 \, w$.) The two agree as long as the rate stays the same. When it drops, as it
# did three times while AlexNet was trained, they part. In the paper's form the velocity has the old rate inside and
# rolls on with it. In PyTorch's form all that was collected counts with the new, smaller rate at once.

# %%
both = {"momentum": 0.9, "weight_decay": 0.0005}


def dropping(step):
    return 0.018 if step < 30 else 0.0018


paper = engine_path(dropping, 60, **both, form="paper")
torch = engine_path(dropping, 60, **both, form="torch")
for step in 30, 31, 40:
    gap = np.abs(paper[step] - torch[step]).max()
    print(f"after {step} steps the two are {gap:.1e} apart")
assert np.allclose(paper[:31], torch[:31])
assert not np.allclose(paper[31], torch[31])


# %% [markdown]
# ## The training loop
#
# Now everything together. Each batch goes the same way: forget the old gradients, compute the scores and the loss, go
# back along the tape, take a step. Every 15 steps we look at the held-out images, without recording a tape.


# %%
def error_rate(network):
    """The share of held-out images whose highest score is not the true class."""
    with mt.no_grad():
        scores = network(mt.tensor(held_out)).numpy()
    return np.mean(scores.argmax(axis=1) != held_out_labels)


def train(network, rate, epochs):
    """The loss of each step, and pairs (steps, error rate)."""
    optimizer = optim.SGD(
        network.parameters(), rate, 0.9, weight_decay=0.0005, form="paper"
    )
    losses, errors = [], []
    rng = np.random.default_rng(0)  # the same batches for every network
    for _ in range(epochs):
        for chosen in batches(N, 32, rng):
            optimizer.zero_grad()
            scores = network(mt.tensor(images[chosen]))
            loss = F.cross_entropy(scores, labels[chosen])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % 15 == 0:
                errors.append((len(losses), error_rate(network)))
    return losses, errors


mt.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
losses, errors = train(network, rate=0.01, epochs=4)
for steps, error in errors[2::3]:
    print(f"{steps:4} steps: {100 * error:5.1f} % of the held-out images wrong")
assert errors[-1][1] < 0.2

# %% [markdown]
# ## The first weights
#
# Training begins somewhere. Not at zero: then all inner units of a layer compute the same, get the same gradient, and
# stay the same for ever. So the first weights are random, and the question is how large. Send random numbers through
# eight layers with ReLUs and look at their *spread* (the root of their mean square) behind each.


# %%
def spreads(std, n=256, layers=8):
    """The spread behind each layer of n outputs whose weights have the spread `std`."""
    rng = np.random.default_rng(0)
    values, result = rng.standard_normal((500, n)), []
    for _ in range(layers):
        weight = std * rng.standard_normal((n, n))
        values = np.maximum(values @ weight.T, 0)
        result.append(np.sqrt(np.mean(values**2)))
    return result


STDS = {
    "0.01": 0.01,
    "1/sqrt(n)": (1 / 256) ** 0.5,
    "sqrt(2/n)": (2 / 256) ** 0.5,
    "0.2": 0.2,
}
print("spread behind   ", "   layer 1   layer 4   layer 8")
for name, std in STDS.items():
    s = spreads(std)
    print(f"weights of {name:9}   {s[0]:10.2g}{s[3]:10.2g}{s[7]:10.2g}")
assert spreads(0.01)[-1] < 1e-6 and spreads(0.2)[-1] > 100
assert 0.5 < spreads(STDS["sqrt(2/n)"])[-1] < 2

# %% [markdown]
# Why the square root of 2/n? Each output adds up n products. When independent numbers around 0 are added, their mean
# squares add up: n times the mean square of the weights, times that of the inputs. The ReLU then sets half of the
# outputs to 0, which halves the mean square. It stays the same if
#
# $$\tfrac12 \, n \, s^2 = 1, \qquad s = \sqrt{2 / n}$$
#
# n is the number of inputs that one output adds up, the *fan in*: I for a weight (O, I), and C R S for a convolution's
# weight (F, C, R, S). The rule is from He and others (2015), three years after AlexNet. (Kaiming is He's first name,
# and the underscore says that the tensor itself is changed. *Activations* are the values behind a layer, and the
# *variance* of the weights is $s^2$.)

# %%
source(init.kaiming_normal_)

# %% [markdown]
# ### The plateau
#
# What does it do to learning if everything fades away? We train networks of three and of four layers, with first
# weights of 0.01 as the paper has them, and with He's rule. (`initialise` fills all weights with what it is given, and
# all biases with 0.) The unit of the picture is an epoch, 45 steps.


# %%
def stack_of_layers(depth, weights):
    mt.manual_seed(0)
    inner = [part for _ in range(depth - 2) for part in (nn.Linear(64, 64), nn.ReLU())]
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), *inner, nn.Linear(64, 10)
    )
    init.initialise(network, weights)
    return network


def small_normal(weight):
    return init.normal_(weight, std=0.01)


STARTS = {"std 0.01": small_normal, "He": init.kaiming_normal_}
curves, slopes = {}, {}
for depth in 3, 4:
    for name, weights in STARTS.items():
        network = stack_of_layers(depth, weights)
        F.cross_entropy(network(mt.tensor(images)), labels).backward()
        first = next(network.parameters())
        slopes[f"{depth} layers, {name}"] = np.abs(first.grad.numpy()).max()
        losses, _ = train(network, rate=0.01, epochs=20)
        curves[f"{depth} layers, {name}"] = np.reshape(losses, (20, 45)).mean(axis=1)

# %%
figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
for (name, curve), style in zip(curves.items(), ("--", "--", "-", "-"), strict=True):
    axes.plot(
        range(1, 21), curve, style, color=BLUE if "He" in name else RED, label=name
    )
axes.axhline(
    math.log(10), color="black", ls=":", zorder=3, label="knowing nothing: ln 10"
)
axes.set(xlabel="epoch", ylabel="mean loss", xticks=range(1, 21))
axes.legend()
plt.show()
for name, slope in slopes.items():
    print(
        f"{name:18}: largest slope of the first layer's weights at the start {slope:.1e}"
    )
assert np.abs(curves["4 layers, std 0.01"] - math.log(10)).max() < 0.01
assert curves["3 layers, std 0.01"][4] > 2.29 and curves["3 layers, std 0.01"][-1] < 1
assert curves["3 layers, He"][0] < 2 and curves["4 layers, He"][0] < 2

# %% [markdown]
# With He's rule both networks learn in the first epoch. With 0.01 the one of three layers sits at ln 10 for several
# epochs and then finds its way, and the one of four layers does not find it at all here. Nothing is wrong with it but
# its start: the slopes of the first layer are so tiny that it does not move. AlexNet has eight layers and did learn,
# according to the paper from 0.01 everywhere (its published code has 0.03 in three layers). Its layers are wider, so
# that 0.01 is less small for them (exercise 5.4), its pixels were not divided by their spread, and the paper set the
# biases of five layers to 1, so that their ReLUs let something through from the start.
#
# **When a loss sits at ln K**, look at these, in this order:
#
# - Do labels and images belong together? (If they were shuffled apart, nothing is left but to learn each image by
#   heart, which is slow.)
# - Have the images mean 0 and a spread of about 1?
# - How large are the values behind each layer, and the gradients of the first one? (If they vanish, the first weights are
#   too small.)
# - Would another learning rate do, ten times as small or as large?
#
# ## Why the ReLU
#
# Before AlexNet the usual bend was the *sigmoid* $1 / (1 + e^{-x})$ or the *hyperbolic tangent*, tanh. Both level out on
# both sides. Their slopes, by which the gradient is multiplied on its way back, are small there, and the sigmoid's is
# never above 1/4. The paper calls them *saturating*. The ReLU has slope 1 wherever it is positive.

# %%
x = mt.tensor(np.linspace(-5, 5, 201), requires_grad=True)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for function, colour in (F.sigmoid, BLUE), (F.tanh, "gray"), (F.relu, RED):
    x.grad = None
    y = function(x)
    y.sum().backward()
    print(f"{function.__name__:8} largest slope {x.grad.numpy().max():.2f}")
    axes[0].plot(x.numpy(), y.numpy(), color=colour, label=function.__name__)
    axes[1].plot(x.numpy(), x.grad.numpy(), color=colour)
axes[0].set(ylim=(-1.2, 2.2), title="value")
axes[1].set(ylim=(-0.1, 1.1), title="slope")
axes[0].legend()
plt.show()


# %% [markdown]
# Put eight layers behind one another, and divide the typical gradient of the first layer by that of the seventh, which
# has the same shape. Each network gets weights that suit it, $s = c / \sqrt{n}$ with its own factor c: $\sqrt 2$ for
# the ReLU, as we saw; 1 for tanh, whose slope near 0 is 1; 4 for the sigmoid, to make up for its slope of 1/4. The
# first line shows the sigmoid with 1.


# %%
def scaled(factor):
    """A function that fills a weight with numbers of the spread factor / sqrt(fan in)."""
    return lambda w: init.normal_(w, std=factor / math.sqrt(init.fan_in(w.shape)))


FACTOR = {nn.Sigmoid: 4.0, nn.Tanh: 1.0, nn.ReLU: 2.0**0.5}
vanishing = {}
for bend, factor in (nn.Sigmoid, 1.0), *FACTOR.items():
    mt.manual_seed(0)
    inner = [part for _ in range(6) for part in (bend(), nn.Linear(64, 64))]
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), *inner, bend(), nn.Linear(64, 10)
    )
    init.initialise(network, scaled(factor))
    F.cross_entropy(network(mt.tensor(images)), labels).backward()
    weights = [p for p in network.parameters() if p.ndim == 2]
    first, seventh = (np.abs(weights[k].grad.numpy()).mean() for k in (0, 6))
    vanishing[bend, factor] = first / seventh
    print(f"{bend.__name__:8} c = {factor:.2f}: first / seventh {first / seventh:.5f}")
assert vanishing[nn.Sigmoid, 1.0] < 1e-3 and vanishing[nn.Sigmoid, 4.0] < 0.2
assert vanishing[nn.Tanh, 1.0] > 0.5 and vanishing[nn.ReLU, 2.0**0.5] > 0.5

# %% [markdown]
# The sigmoid loses most of the gradient, even with weights that make up for its slope. Tanh does not, with weights
# chosen for it, as long as its inputs stay near 0; its slope shrinks only where they grow large. So this measurement
# speaks against the sigmoid, not against tanh.

# %% [markdown]
# ## The whole thing
#
# Two networks of the same size. One has what was usual before: a function that saturates, here the sigmoid, and
# *average pooling*, which takes the mean of each window of 2 x 2. The other has AlexNet's ingredients: ReLUs, and
# max-pooling of 3 x 3 windows two pixels apart. `ceil_mode=True` lets the last window stick out at the edge, so that
# both go from 8 to 4 to 2 pixels.

# %%
POOLS = {
    "average": lambda: nn.AvgPool2d(2),
    "max": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
}


def digit_network(bend, pool):
    mt.manual_seed(0)
    pool = POOLS[pool]
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        bend(),
        pool(),
        nn.Conv2d(16, 32, 3, padding=1),
        bend(),
        pool(),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 64),
        bend(),
        nn.Linear(64, 10),
    )
    init.initialise(network, scaled(FACTOR[bend]))
    scaled(1.0)(network[-1].weight)  # no bend behind the last layer
    return network


digit_network(nn.ReLU, "max")

# %% [markdown]
# To be fair to both: the same images in the same order, weights that suit each, and the learning rate that suits each.
# The last is found by a trial of one epoch at each of six rates, judged by the loss on the *training* images. Nothing
# may be chosen by the held-out images, or they would no longer show what happens with unseen ones.
#
# Two things differ between our two networks, so we train all combinations, and tanh as well, which is what the paper
# compares with in its Figure 1. `progress_bar` shows how far a loop has come. This takes the longest, some twenty seconds.

# %%
EPOCHS = 8


def best_rate(bend, pool):
    losses = {}
    for rate in 0.003, 0.01, 0.03, 0.1, 0.3, 1.0:
        trial, _ = train(digit_network(bend, pool), rate, epochs=1)
        losses[rate] = np.mean(trial[-15:])
    return min(losses, key=losses.get)


kinds = [(bend, pool) for bend in FACTOR for pool in POOLS]
runs = {}
for bend, pool in progress_bar(kinds, desc="networks"):
    rate = best_rate(bend, pool)
    network = digit_network(bend, pool)
    losses, errors = train(network, rate, EPOCHS)
    runs[bend, pool] = network, rate, losses, errors

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for kind, colour in ((nn.Sigmoid, "average"), BLUE), ((nn.ReLU, "max"), RED):
    network, rate, losses, errors = runs[kind]
    smooth = np.reshape(losses, (-1, 15)).mean(axis=1)
    name = f"{kind[0].__name__}, {kind[1]} pooling"
    left.plot(15 * np.arange(1, len(smooth) + 1), smooth, color=colour, label=name)
    right.plot([n for n, _ in errors], [100 * e for _, e in errors], color=colour)
left.axhline(math.log(10), color="gray", linestyle=":", label="ln 10")
left.set(xlabel="steps", ylabel="loss on training images")
right.set(xlabel="steps", ylabel="error on held-out images (%)", ylim=(0, 100))
left.legend()
plt.show()


# %%
def steps_until(errors, wanted):
    """After how many steps the error rate is first at most `wanted`."""
    return next((steps for steps, error in errors if error <= wanted), math.inf)


print(f"{'':24}{'steps until the error is at most':^36}{'error at':>13}")
print(f"{'':17}{'rate':>7}{'25 %':>12}{'10 %':>12}{'5 %':>12}{'the end':>13}")
for (bend, pool), (_, rate, _, errors) in runs.items():
    steps = "".join(f"{steps_until(errors, e):12.0f}" for e in (0.25, 0.10, 0.05))
    print(f"{bend.__name__:9}{pool:8}{rate:7}{steps}{100 * errors[-1][1]:11.1f} %")

network, _, _, errors = runs[nn.ReLU, "max"]
count = len(held_out)
right_ones = round(count * (1 - errors[-1][1]))
print(f"\nReLU and max-pooling: {right_ones} of {count} held-out digits are right")
assert right_ones / count >= 0.95
for pool in POOLS:
    sigmoid, tanh, relu = (steps_until(runs[b, pool][3], 0.25) for b in FACTOR)
    assert 2 * relu <= sigmoid and tanh <= 2 * relu

# %% [markdown]
# Read the table with care. (`inf` would mean: not within these epochs.) Against the sigmoid the ReLU is ahead by a
# factor, with either pooling. Against tanh it is not: on a shallow network and easy images tanh, with weights and a
# rate that suit it, keeps up. The paper's Figure 1 reports a ReLU six times as fast as tanh, in error on the training
# images, with four layers and on colour photographs. What a measurement shows, it shows for what was measured. And a
# sigmoid is slow, not unable. Here it has three times as long:

# %%
_, rate, _, errors = runs[nn.Sigmoid, "average"]
_, longer = train(digit_network(nn.Sigmoid, "average"), rate, 3 * EPOCHS)
for steps, error in errors[-1], longer[-1]:
    print(f"sigmoid after {steps:4} steps: {100 * error:.1f} % wrong")
assert longer[-1][1] < errors[-1][1]

# %% [markdown]
# ### What it finds hard, and what it looks for
#
# The six held-out images by which the network with ReLUs is most surprised, with the ten probabilities it gave them. The
# true digit's bar is red.

# %%
with mt.no_grad():
    p = F.softmax(network(mt.tensor(held_out)), dim=1).numpy()
surprise = -np.log(p[np.arange(count), held_out_labels])
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for k, (above, below) in zip(surprise.argsort()[::-1], axes.T, strict=False):
    truth = held_out_labels[k]
    above.imshow(digits.test_images[k, 0], cmap="gray")
    above.set_title(f"{truth}, taken for {p[k].argmax()}", fontsize=10)
    above.axis("off")
    colours = [RED if digit == truth else BLUE for digit in range(10)]
    below.bar(range(10), p[k], color=colours)
    below.set(ylim=(0, 1), xticks=range(10), yticks=[0, 1])
    below.tick_params(labelsize=7)
plt.show()

# %% [markdown]
# And the 16 filters of the first layer, as the paper shows its 96 in Figure 3. Light pixels add to the result, dark
# ones subtract, mid-gray is 0, and each filter is stretched to the full range by itself. With images this small, and so
# few of them, do not expect AlexNet's tidy edges and colours.

# %%
plots.filters(network[0].weight.numpy())

# %% [markdown]
# ## Summary
#
# - Softmax turns scores into probabilities; subtract each row's largest score first. Cross entropy is the mean surprise at
#   the truth, its gradient is (probabilities - one-hot) / N, and a network that knows nothing has the loss ln K.
# - A module owns parameters and computes in `forward`. Modules contain modules.
# - A step moves each weight against its gradient, times the learning rate. A batch shows most of the direction for
#   little work. Momentum adds up what slopes agree on. Where they alternate it does not build up.
# - First weights of spread sqrt(2 / fan in) keep values alive behind ReLUs. Too small ones leave the loss on a plateau.
# - The sigmoid shrinks the gradient layer by layer, tanh where its inputs are large. The ReLU passes it on unchanged
#   where it is positive.
# - Everything was chosen by the training images. The held-out ones only measure.
#
# ## Exercises
#
# As in lesson 1: write each function, run the cell, then the check below it. `hint("5.1")` helps.
#
# ### 5.1 A softmax that does not overflow (10 minutes)
#
# Write `softmax(scores)` for an array of shape (N, K): one row of probabilities for each image, right for scores of any
# size.


# %%
def softmax(scores):
    ### BEGIN SOLUTION
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %%
check("5.1", softmax)

# %% [markdown]
# ### 5.2 Cross entropy as an operation (15 minutes)
#
# Write `cross_entropy(xp, scores, labels)` in the form of an op, without the decorator: the mean surprise, and a tuple
# of gradient functions. Scores are (N, K), labels are (N,) whole numbers. Labels have no slope: put `None` in the place
# of their gradient function, which is how an op says that there is none. It should be right for large scores too.
# Useful: `xp.arange(N)` and `xp.log`.


# %%
def cross_entropy(xp, scores, labels):
    ### BEGIN SOLUTION
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    value = -log_p[xp.arange(N), labels].mean()
    return value, (lambda g: g * (xp.exp(log_p) - one_hot) / N, None)
    ### END SOLUTION


# %%
check("5.2", cross_entropy)

# %% [markdown]
# ### 5.3 The paper's step (10 minutes)
#
# Write `momentum_step(w, v, g, rate, momentum, decay)`: one step of the paper's rule for the weight `w` with the
# velocity `v` and the gradient `g`, all arrays of the same shape. Return the new weight and the new velocity, `(w, v)`,
# and leave the arrays that you were given as they are.


# %%
def momentum_step(w, v, g, rate, momentum, decay):
    ### BEGIN SOLUTION
    v = momentum * v - decay * rate * w - rate * g
    return w + v, v
    ### END SOLUTION


# %%
check("5.3", momentum_step)

# %% [markdown]
# ### 5.4 How large the first weights should be (5 minutes)
#
# Write `he_std(shape)`: the spread by He's rule for a weight of that shape, (O, I) of a linear layer or (F, C, R, S) of
# a convolution. Then try it on AlexNet's second layer, (256, 48, 5, 5), and its sixth, (4096, 9216): how far below is
# 0.01?


# %%
def he_std(shape):
    ### BEGIN SOLUTION
    return math.sqrt(2 / math.prod(shape[1:]))
    ### END SOLUTION


# %%
check("5.4", he_std)

# %% [markdown]
# ### 5.5 A block of AlexNet (20 minutes)
#
# Write the module `ConvBlock(channels, filters, size)`: a convolution with filters of `size` x `size` pixels (an odd
# number) that keeps height and width, then the ReLU, then max-pooling with windows of 3 x 3, two pixels apart. It maps
# (N, channels, H, W) to (N, filters, P, Q). Use the engine's layers or functions, but see to it that training finds the
# weight, (filters, channels, size, size), and the bias, (filters,). Two blocks must not begin with equal weights.


# %%
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        ### BEGIN SOLUTION
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return F.max_pool2d(F.relu(self.conv(x)), 3, 2)
        ### END SOLUTION


# %%
check("5.5", ConvBlock)

# %% [markdown]
# **Next:** these five lessons hold all the parts. Lesson 6 shows how they run on other backends, and lesson 7 puts them
# together to AlexNet itself, layer by layer.
