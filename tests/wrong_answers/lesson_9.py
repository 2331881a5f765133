# Wrong answers to the exercises of lesson 9 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import minitorch_alex as mt
import minitorch_alex.functional as F
import numpy as np
from minitorch_alex import init, nn


# %% 9.1: one scale for all filters
def for_display(weight):
    return (0.5 + weight / (2 * np.abs(weight).max())).transpose(0, 2, 3, 1)


# %% 9.1: so that 0 is not mid-grey
def for_display(weight):
    low = weight.min(axis=(1, 2, 3), keepdims=True)
    high = weight.max(axis=(1, 2, 3), keepdims=True)
    return ((weight - low) / (high - low)).transpose(0, 2, 3, 1)


# %% 9.1: take np.abs before the maximum
def for_display(weight):
    largest = weight.max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + weight / (2 * largest)).transpose(0, 2, 3, 1)


# %% 9.1: each colour is stretched by itself
def for_display(weight):
    largest = np.abs(weight).max(axis=(2, 3), keepdims=True)
    return (0.5 + weight / (2 * np.maximum(largest, 1e-12))).transpose(0, 2, 3, 1)


# %% 9.1: from -0.5 to 1.5
def for_display(weight):
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + weight / largest).transpose(0, 2, 3, 1)


# %% 9.1: a filter of zeros is divided by its largest tap
def for_display(weight):
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + weight / (2 * largest)).transpose(0, 2, 3, 1)


# %% 9.1: a filter of zeros should be mid-grey
def for_display(weight):
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return np.nan_to_num((0.5 + weight / (2 * largest)).transpose(0, 2, 3, 1))


# %% 9.1: the axes are still (F, C, R, S)
def for_display(weight):
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + weight / (2 * np.maximum(largest, 1e-12))


# %% 9.1: rows and columns are swapped
def for_display(weight):
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + weight / (2 * np.maximum(largest, 1e-12))).transpose(0, 3, 2, 1)


# %% 9.1: reshape moves no axes
def for_display(weight):
    filters, C, R, S = weight.shape
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + weight / (2 * np.maximum(largest, 1e-12))).reshape(filters, R, S, C)


# %% 9.1: changes what it was given
def for_display(weight):
    weight /= 2 * np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    return (0.5 + weight).transpose(0, 2, 3, 1)


# %% 9.2: these are counts: divide each row
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    np.add.at(counts, (labels, predicted), 1)
    return counts


# %% 9.2: counts a pair once, however often it occurs
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    counts[labels, predicted] += 1
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


# %% 9.2: counts a pair once, however often it occurs
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    counts[labels, predicted] += 1
    return counts / np.maximum(np.bincount(labels, minlength=K), 1)[:, None]


# %% 9.2: rows and columns are swapped
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    for truth, guess in zip(labels, predicted, strict=True):
        counts[guess, truth] += 1
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


# %% 9.2: divide each row by its sum, not each column
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    np.add.at(counts, (labels, predicted), 1)
    return counts / counts.sum(axis=0, keepdims=True)


# %% 9.2: sum(axis=1) without keepdims
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    np.add.at(counts, (labels, predicted), 1)
    return counts / np.maximum(counts.sum(axis=1), 1)


# %% 9.2: these are shares of all images
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    np.add.at(counts, (labels, predicted), 1)
    return counts / len(labels)


# %% 9.2: leave the row of a class without images 0
def confusion(labels, predicted, K):
    counts = np.zeros((K, K))
    np.add.at(counts, (labels, predicted), 1)
    return counts / counts.sum(axis=1, keepdims=True)


# %% 9.2: also for classes that do not occur
def confusion(labels, predicted, K):
    K = max(labels.max(), predicted.max()) + 1
    counts = np.zeros((K, K))
    np.add.at(counts, (labels, predicted), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


# %% 9.2: whole numbers, so fractions are cut off
def confusion(labels, predicted, K):
    counts = np.zeros((K, K), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts // np.maximum(counts.sum(axis=1, keepdims=True), 1)


# %% 9.3: the smallest distances come first
def vote(query, rows, labels, count):
    distances = ((rows.astype(float) - query) ** 2).sum(axis=1)
    nearest = labels[distances.argsort()[::-1][:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: square the differences
def vote(query, rows, labels, count):
    distances = np.abs(rows.astype(float) - query).sum(axis=1)
    nearest = labels[distances.argsort()[:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: near means a small distance
def vote(query, rows, labels, count):
    nearest = labels[(rows.astype(float) @ query).argsort()[::-1][:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: look up their labels
def vote(query, rows, labels, count):
    return ((rows.astype(float) - query) ** 2).sum(axis=1).argmin()


# %% 9.3: count the votes of all
def vote(query, rows, labels, count):
    return labels[((rows.astype(float) - query) ** 2).sum(axis=1).argmin()]


# %% 9.3: the smallest number wins, as argmax has it
def vote(query, rows, labels, count):
    distances = ((rows.astype(float) - query) ** 2).sum(axis=1)
    return np.bincount(labels[distances.argsort()[:count]]).argmax()


# %% 9.3: the nearest row is left out
def vote(query, rows, labels, count):
    distances = ((rows.astype(float) - query) ** 2).sum(axis=1)
    nearest = labels[distances.argsort()[1 : count + 1]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: bytes know no negative numbers
def vote(query, rows, labels, count):
    distances = ((rows - query) ** 2).sum(axis=1)
    nearest = labels[distances.argsort()[:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: bytes know no negative numbers
def vote(query, rows, labels, count):
    distances = np.linalg.norm(rows - query, axis=1)
    nearest = labels[distances.argsort()[:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: do not fit into whole numbers of 16 bits
def vote(query, rows, labels, count):
    if rows.dtype == "uint8":
        rows, query = rows.astype("int16"), query.astype("int16")
    nearest = labels[((rows - query) ** 2).sum(axis=1).argsort()[:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: Subtract first and then square
def vote(query, rows, labels, count):
    a, b = rows.astype("float32"), query.astype("float32")
    distances = (a**2).sum(axis=1) - 2 * a @ b + (b**2).sum()
    nearest = labels[distances.argsort(kind="stable")[:count]]
    votes = np.bincount(nearest)
    return next(k for k in nearest if votes[k] == votes.max())


# %% 9.3: they are to vote, and one class is the answer
def vote(query, rows, labels, count):
    return labels[((rows.astype(float) - query) ** 2).sum(axis=1).argsort()[: count + 1]]


# %% 9.4: a steep slope downhill counts, too
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(x)[0, label].backward()
    return x.grad.numpy()[0].max(axis=0)


# %% 9.4: the sizes are added up over the channels
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(x)[0, label].backward()
    return np.abs(x.grad.numpy()[0]).sum(axis=0)


# %% 9.4: this is the slope of the probability
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    F.softmax(network(x), 1)[0, label].backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)


# %% 9.4: this is the slope of the loss
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    F.cross_entropy(network(x), np.array([label])).backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)


# %% 9.4: this is the slope of all scores together
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(x).sum().backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)


# %% 9.4: x.grad is None
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(mt.tensor(image[None], requires_grad=True))[0, label].backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)


# %% 9.4: make a leaf with tensor(..., requires_grad=True)
def saliency(network, image, label):
    for parameter in network.parameters():
        parameter.requires_grad = False
    x = mt.tensor(image[None])
    network(x)[0, label].backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)


# %% 9.4: take the largest over the channels, axis 0
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(x)[0, label].backward()
    return np.abs(x.grad.numpy()[0])


# %% 9.4: the first axis is left of the batch
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(x)[0, label].backward()
    return np.abs(x.grad.numpy()).max(axis=1)


# %% 9.4: scores[0, label]
def saliency(network, image, label):
    x = mt.tensor(image[None], requires_grad=True)
    network(x)[label].backward()
    return np.abs(x.grad.numpy()[0]).max(axis=0)


# %% 9.4: the batch of one is missing
def saliency(network, image, label):
    x = mt.tensor(image, requires_grad=True)
    network(x)[label].backward()
    return np.abs(x.grad.numpy()).max(axis=0)


# %% 9.5: nothing is frozen
def new_head(network, classes):
    layers = network.named_layers()
    last = list(layers)[-1]
    layers[last] = nn.Linear(layers[last].in_features, classes)
    return nn.Sequential(layers)


# %% 9.5: freeze first, then make it
def new_head(network, classes):
    layers = network.named_layers()
    last = list(layers)[-1]
    layers[last] = nn.Linear(layers[last].in_features, classes)
    new = nn.Sequential(layers)
    for parameter in new.parameters():
        parameter.requires_grad = False
    return new


# %% 9.5: layers have no requires_grad of their own
def new_head(network, classes):
    layers = network.named_layers()
    for layer in layers.values():
        layer.requires_grad = False
    last = list(layers)[-1]
    layers[last] = nn.Linear(layers[last].in_features, classes)
    return nn.Sequential(layers)


# %% 9.5: layers have no requires_grad of their own
def new_head(network, classes):
    network.requires_grad = False
    layers = network.layers()
    return nn.Sequential(*layers[:-1], nn.Linear(layers[-1].in_features, classes))


# %% 9.5: the old last layer is still there
def new_head(network, classes):
    for parameter in network.parameters():
        parameter.requires_grad = False
    return nn.Sequential(*network.layers(), nn.Linear(network[-1].out_features, classes))


# %% 9.5: there is a Sequential inside the new one
def new_head(network, classes):
    for parameter in network.parameters():
        parameter.requires_grad = False
    return nn.Sequential(network, nn.Linear(network[-1].out_features, classes))


# %% 9.5: its in_features, and not what it gave
def new_head(network, classes):
    for parameter in network.parameters():
        parameter.requires_grad = False
    layers = network.layers()
    return nn.Sequential(*layers[:-1], nn.Linear(layers[-1].out_features, classes))


# %% 9.5: the biases of the other layers are parameters, too
def new_head(network, classes):
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            parameter.requires_grad = False
    layers = network.layers()
    return nn.Sequential(*layers[:-1], nn.Linear(layers[-1].in_features, classes))


# %% 9.5: this is the new layer alone
def new_head(network, classes):
    for parameter in network.parameters():
        parameter.requires_grad = False
    return nn.Linear(network[-1].in_features, classes)


# %% 9.5: also where the number of classes is the same
def new_head(network, classes):
    for parameter in network.layers()[0].parameters():
        parameter.requires_grad = False
    for layer in network.layers()[:-1]:
        for parameter in layer.parameters():
            parameter.requires_grad = False
    if network[-1].out_features == classes:
        return network
    layers = network.layers()
    return nn.Sequential(*layers[:-1], nn.Linear(layers[-1].in_features, classes))


# %% 9.5: a Sequential cannot be assigned into
def new_head(network, classes):
    for parameter in network.parameters():
        parameter.requires_grad = False
    network[-1] = nn.Linear(network[-1].in_features, classes)
    return network


# %% 9.5: what can be trained is nothing
def new_head(network, classes):
    layers = network.layers()
    new = nn.Sequential(*layers[:-1], nn.Linear(layers[-1].in_features, classes))
    for parameter in new.parameters():
        parameter.requires_grad = False
    return new


# %% 9.5: all layers but the last keep theirs
def new_head(network, classes):
    layers = network.named_layers()
    last = list(layers)[-1]
    layers[last] = nn.Linear(layers[last].in_features, classes)
    new = nn.Sequential(layers)
    init.initialise(new, init.kaiming_normal_)
    for name, parameter in new.named_parameters():
        parameter.requires_grad = name.startswith(f"{last}.")
    return new
