# Wrong answers to the exercises of lesson 8 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import itertools
import math

import numpy as np


def softmax(scores):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def five_views(images, size):
    H, W = images.shape[-2:]
    bottom, right = H - size, W - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return [images[:, :, top : top + size, left : left + size] for top, left in places]


# %% 8.1: a place along each axis is missing
def count_views(H, W, size, mirror):
    return (H - size) * (W - size) * (2 if mirror else 1)


# %% 8.1: multiply, do not add
def count_views(H, W, size, mirror):
    return (H - size + 1 + W - size + 1) * (2 if mirror else 1)


# %% 8.1: the mirror images are missing
def count_views(H, W, size, mirror):
    return (H - size + 1) * (W - size + 1)


# %% 8.1: there are mirror images only if `mirror` is True
def count_views(H, W, size, mirror):
    return 2 * (H - size + 1) * (W - size + 1)


# %% 8.1: a square may begin at any pixel
def count_views(H, W, size, mirror):
    return (H // size) * (W // size) * (1 + mirror)


# %% 8.1: this is right for square images only
def count_views(H, W, size, mirror):
    return (H - size + 1) ** 2 * (1 + mirror)


# %% 8.1: doubles the number
def count_views(H, W, size, mirror):
    return (H - size + 1) * (W - size + 1) * (4 if mirror else 1)


# %% 8.2: argsort goes from small to large
def top_k_error(scores, labels, k):
    order = np.argsort(scores, axis=1, kind="stable")
    return np.mean(~(order[:, :k] == labels[:, None]).any(axis=1))


# %% 8.2: this is the share that is right
def top_k_error(scores, labels, k):
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.mean((order[:, :k] == labels[:, None]).any(axis=1))


# %% 8.2: as when argsort is reversed
def top_k_error(scores, labels, k):
    order = np.argsort(scores, axis=1, kind="stable")[:, ::-1]
    return np.mean(~(order[:, :k] == labels[:, None]).any(axis=1))


# %% 8.2: as when argsort is reversed
def top_k_error(scores, labels, k):
    order = np.argsort(scores, axis=1, kind="stable")
    return np.mean(~(order[:, -k:] == labels[:, None]).any(axis=1))


# %% 8.2: counts as before the others
def top_k_error(scores, labels, k):
    truth = scores[np.arange(len(labels)), labels]
    return np.mean((scores > truth[:, None]).sum(axis=1) >= k)


# %% 8.2: counts as behind the others
def top_k_error(scores, labels, k):
    truth = scores[np.arange(len(labels)), labels]
    return np.mean((scores >= truth[:, None]).sum(axis=1) > k)


# %% 8.2: this is the top-1 error
def top_k_error(scores, labels, k):
    return np.mean(scores.argmax(axis=1) != labels)


# %% 8.2: only the class in place k is looked at
def top_k_error(scores, labels, k):
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.mean(order[:, k - 1] != labels)


# %% 8.2: this is in percent
def top_k_error(scores, labels, k):
    order = np.argsort(-scores, axis=1, kind="stable")
    return 100 * np.mean(~(order[:, :k] == labels[:, None]).any(axis=1))


# %% 8.2: divide by how many there are
def top_k_error(scores, labels, k):
    order = np.argsort(-scores, axis=1, kind="stable")
    return sum(label not in first[:k] for first, label in zip(order, labels, strict=True))


# %% 8.2: changes what it was given
def top_k_error(scores, labels, k):
    scores *= -1
    order = np.argsort(scores, axis=1, kind="stable")
    return np.mean(~(order[:, :k] == labels[:, None]).any(axis=1))


# %% 8.3: the mirror images are missing
def ten_view_probabilities(network, images, size):
    return np.mean([softmax(network(view)) for view in five_views(images, size)], axis=0)


# %% 8.3: first the softmax of each view, then the mean
def ten_view_probabilities(network, images, size):
    five = five_views(images, size)
    return softmax(np.mean([network(view) for view in five + [v[..., ::-1] for v in five]], axis=0))


# %% 8.3: the softmax is missing
def ten_view_probabilities(network, images, size):
    five = five_views(images, size)
    return np.mean([network(view) for view in five + [v[..., ::-1] for v in five]], axis=0)


# %% 8.3: divide by 10
def ten_view_probabilities(network, images, size):
    five = five_views(images, size)
    return sum(softmax(network(view)) for view in five + [v[..., ::-1] for v in five])


# %% 8.3: the mirror images are upside down
def ten_view_probabilities(network, images, size):
    five = five_views(images, size)
    return np.mean([softmax(network(view)) for view in five + [v[:, :, ::-1] for v in five]], axis=0)


# %% 8.3: the channels are reversed
def ten_view_probabilities(network, images, size):
    five = five_views(images, size)
    return np.mean([softmax(network(view)) for view in five + [v[:, ::-1] for v in five]], axis=0)


# %% 8.3: the centre begins at half of the image
def ten_view_probabilities(network, images, size):
    H, W = images.shape[-2:]
    places = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size)]
    places.append((min(H // 2, H - size), min(W // 2, W - size)))
    five = [images[:, :, top : top + size, left : left + size] for top, left in places]
    return np.mean([softmax(network(view)) for view in five + [v[..., ::-1] for v in five]], axis=0)


# %% 8.3: an end that lies inside the image
def ten_view_probabilities(network, images, size):
    H, W = images.shape[-2:]
    five = [images[:, :, top : top + size, left : left + size] for top in (0, H // 2) for left in (0, W // 2)]
    five.append(images[:, :, H // 4 : H // 4 + size, W // 4 : W // 4 + size])
    return np.mean([softmax(network(view)) for view in five + [v[..., ::-1] for v in five]], axis=0)


# %% 8.3: all images, all channels
def ten_view_probabilities(network, images, size):
    views = [images[:size, :size], images[-size:, :size], images[:size, -size:], images[-size:, -size:]]
    return np.mean([softmax(network(view)) for view in views], axis=0)


# %% 8.3: the centre is missing
def ten_view_probabilities(network, images, size):
    four = five_views(images, size)[:4]
    return np.mean([softmax(network(view)) for view in four + [v[..., ::-1] for v in four]], axis=0)


# %% 8.4: it drops an epoch too early
def rates_on_plateau(errors, rate, patience):
    rates, best, waited, drops = [], math.inf, 0, 0
    for error in errors:
        rates.append(rate)
        if error < best:
            best, waited = error, 0
            continue
        waited += 1
        if waited >= patience and drops < 3:
            rate, waited, drops = rate / 10, 0, drops + 1
    return rates


# %% 8.4: the rate is noted after the decision
def rates_on_plateau(errors, rate, patience):
    rates, best, waited, drops = [], math.inf, 0, 0
    for error in errors:
        if error < best:
            best, waited = error, 0
        else:
            waited += 1
            if waited > patience and drops < 3:
                rate, waited, drops = rate / 10, 0, drops + 1
        rates.append(rate)
    return rates


# %% 8.4: it compares with the epoch before
def rates_on_plateau(errors, rate, patience):
    rates, before, waited, drops = [], math.inf, 0, 0
    for error in errors:
        rates.append(rate)
        waited = 0 if error < before else waited + 1
        before = error
        if waited > patience and drops < 3:
            rate, waited, drops = rate / 10, 0, drops + 1
    return rates


# %% 8.4: an equal error counts as an improvement
def rates_on_plateau(errors, rate, patience):
    rates, best, waited, drops = [], math.inf, 0, 0
    for error in errors:
        rates.append(rate)
        if error <= best:
            best, waited = error, 0
            continue
        waited += 1
        if waited > patience and drops < 3:
            rate, waited, drops = rate / 10, 0, drops + 1
    return rates


# %% 8.4: the count does not begin anew when the error improves
def rates_on_plateau(errors, rate, patience):
    rates, best, waited, drops = [], math.inf, 0, 0
    for error in errors:
        rates.append(rate)
        if error < best:
            best = error
            continue
        waited += 1
        if waited > patience and drops < 3:
            rate, waited, drops = rate / 10, 0, drops + 1
    return rates


# %% 8.4: the count does not begin anew after a drop
def rates_on_plateau(errors, rate, patience):
    rates, best, waited, drops = [], math.inf, 0, 0
    for error in errors:
        rates.append(rate)
        if error < best:
            best, waited = error, 0
            continue
        waited += 1
        if waited > patience and drops < 3:
            rate, drops = rate / 10, drops + 1
    return rates


# %% 8.4: there is no end to the drops
def rates_on_plateau(errors, rate, patience):
    rates, best, waited = [], math.inf, 0
    for error in errors:
        rates.append(rate)
        if error < best:
            best, waited = error, 0
            continue
        waited += 1
        if waited > patience:
            rate, waited = rate / 10, 0
    return rates


# %% 8.4: that of the epoch after the last is too much
def rates_on_plateau(errors, rate, patience):
    rates, best, waited, drops = [rate], math.inf, 0, 0
    for error in errors:
        if error < best:
            best, waited = error, 0
        else:
            waited += 1
            if waited > patience and drops < 3:
                rate, waited, drops = rate / 10, 0, drops + 1
        rates.append(rate)
    return rates


# %% 8.4: the rate never drops
def rates_on_plateau(errors, rate, patience):
    return [rate for _ in errors]


# %% 8.5: abs() of each is compared
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), np.mean(a) - np.mean(b)
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([bag[list(w)].mean() - np.delete(bag, w).mean() >= found - 1e-9 for w in ways])


# %% 8.5: the difference that was found keeps its sign
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), np.mean(a) - np.mean(b)
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([abs(bag[list(w)].mean() - np.delete(bag, w).mean()) >= found - 1e-9 for w in ways])


# %% 8.5: only larger differences are counted
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.mean(a) - np.mean(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([abs(bag[list(w)].mean() - np.delete(bag, w).mean()) > found + 1e-9 for w in ways])


# %% 8.5: equal but for the last digit
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.mean(a) - np.mean(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([abs(bag[list(w)].mean() - np.delete(bag, w).mean()) >= found for w in ways])


# %% 8.5: a + b adds two arrays number by number
def share_as_large(a, b):
    bag, found = a + b, abs(np.mean(a) - np.mean(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([abs(bag[list(w)].mean() - bag.mean()) >= found - 1e-9 for w in ways])


# %% 8.5: divide it by how many there are
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.mean(a) - np.mean(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return sum(abs(bag[list(w)].mean() - np.delete(bag, w).mean()) >= found - 1e-9 for w in ways)


# %% 8.5: the groups' sums are compared
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.sum(a) - np.sum(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([abs(bag[list(w)].sum() - np.delete(bag, w).sum()) >= found - 1e-9 for w in ways])


# %% 8.5: the split that was found is left out
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.mean(a) - np.mean(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))[1:]
    return np.mean([abs(bag[list(w)].mean() - np.delete(bag, w).mean()) >= found - 1e-9 for w in ways])


# %% 8.5: the groups' medians are compared
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.median(a) - np.median(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return np.mean([abs(np.median(bag[list(w)]) - np.median(np.delete(bag, w))) >= found - 1e-9 for w in ways])


# %% 8.5: has shape
def share_as_large(a, b):
    bag, found = np.concatenate([a, b]), abs(np.mean(a) - np.mean(b))
    ways = list(itertools.combinations(range(len(bag)), len(a)))
    return [abs(bag[list(w)].mean() - np.delete(bag, w).mean()) >= found for w in ways]
