# Wrong answers to the exercises of lesson 3 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import minitorch_alex as mt
import minitorch_alex.functional as F
import numpy as np


# %% 3.1: the first window is not counted
def output_size(n, kernel, stride, padding):
    return (n + 2 * padding - kernel) // stride


# %% 3.1: padding is on both sides
def output_size(n, kernel, stride, padding):
    return (n + padding - kernel) // stride + 1


# %% 3.1: this is not rounded
def output_size(n, kernel, stride, padding):
    return (n + 2 * padding - kernel) / stride + 1


# %% 3.1: this rounds up
def output_size(n, kernel, stride, padding):
    return -((kernel - n - 2 * padding) // stride) + 1


# %% 3.1: the 1 goes behind the division
def output_size(n, kernel, stride, padding):
    return (n + 2 * padding - kernel + 1) // stride


# %% 3.1: expected a whole number
def output_size(n, kernel, stride, padding):
    return np.floor((n + 2 * padding - kernel) / stride) + 1


# %% 3.2: the stride is missing from where a window begins
def conv2d_loops(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((filters, (H - R) // stride + 1, (W - S) // stride + 1))
    for f, p, q in np.ndindex(y.shape):
        y[f, p, q] = (w[f] * x[:, p : p + R, q : q + S]).sum()
    return y


# %% 3.2: the padding is not used
def conv2d_loops(x, w, stride, padding):
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((filters, (H - R) // stride + 1, (W - S) // stride + 1))
    for f, p, q in np.ndindex(y.shape):
        top, left = p * stride, q * stride
        y[f, p, q] = (w[f] * x[:, top : top + R, left : left + S]).sum()
    return y


# %% 3.2: only the first channel counts
def conv2d_loops(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((filters, (H - R) // stride + 1, (W - S) // stride + 1))
    for f, p, q in np.ndindex(y.shape):
        top, left = p * stride, q * stride
        y[f, p, q] = (w[f, 0] * x[0, top : top + R, left : left + S]).sum()
    return y


# %% 3.2: the filter is turned round
def conv2d_loops(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((filters, (H - R) // stride + 1, (W - S) // stride + 1))
    for f, p, q in np.ndindex(y.shape):
        top, left = p * stride, q * stride
        y[f, p, q] = (w[f, :, ::-1, ::-1] * x[:, top : top + R, left : left + S]).sum()
    return y


# %% 3.2: not only below and to the right
def conv2d_loops(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (0, 2 * padding), (0, 2 * padding)))
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((filters, (H - R) // stride + 1, (W - S) // stride + 1))
    for f, p, q in np.ndindex(y.shape):
        top, left = p * stride, q * stride
        y[f, p, q] = (w[f] * x[:, top : top + R, left : left + S]).sum()
    return y


# %% 3.2: the channels are surrounded by zeros too
def conv2d_loops(x, w, stride, padding):
    x = np.pad(x, padding)
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((filters, (H - R) // stride + 1, (W - S) // stride + 1))
    for f, p, q in np.ndindex(y.shape):
        top, left = p * stride, q * stride
        y[f, p, q] = (w[f] * x[:, top : top + R, left : left + S]).sum()
    return y


# %% 3.3: the stride is missing from where a window begins
def im2col(x, kernel, stride):
    (C, H, W), (R, S) = x.shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    columns = np.zeros((C * R * S, P * Q))
    for p, q in np.ndindex(P, Q):
        columns[:, p * Q + q] = x[:, p : p + R, q : q + S].reshape(-1)
    return columns


# %% 3.3: every patch is a column, not a row
def im2col(x, kernel, stride):
    (_, H, W), (R, S) = x.shape, kernel
    return np.array(
        [
            x[:, p : p + R, q : q + S].reshape(-1)
            for p in range(0, H - R + 1, stride)
            for q in range(0, W - S + 1, stride)
        ]
    )


# %% 3.3: window (p, q) is column p * Q + q
def im2col(x, kernel, stride):
    (C, H, W), (R, S) = x.shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    columns = np.zeros((C * R * S, P * Q))
    for p, q in np.ndindex(P, Q):
        top, left = p * stride, q * stride
        columns[:, q * P + p] = x[:, top : top + R, left : left + S].reshape(-1)
    return columns


# %% 3.3: channel first
def im2col(x, kernel, stride):
    (C, H, W), (R, S) = x.shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    columns = np.zeros((C * R * S, P * Q))
    for p, q in np.ndindex(P, Q):
        patch = x[:, p * stride : p * stride + R, q * stride : q * stride + S]
        columns[:, p * Q + q] = patch.transpose(1, 2, 0).reshape(-1)
    return columns


# %% 3.3: window (p, q) is column p * Q + q
def im2col(x, kernel, stride):
    (C, H, W), (R, S) = x.shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    columns = np.zeros((C * R * S, P * Q))
    for p, q in np.ndindex(P, Q):
        top, left = p * stride, q * stride
        columns[:, p * W + q] = x[:, top : top + R, left : left + S].reshape(-1)
    return columns


# %% 3.4: += in place of =
def col2im(columns, shape, kernel, stride):
    (C, H, W), (R, S) = shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    x = np.zeros(shape)
    for p, q in np.ndindex(P, Q):
        top, left = p * stride, q * stride
        x[:, top : top + R, left : left + S] = columns[:, p * Q + q].reshape(C, R, S)
    return x


# %% 3.4: this is the mean over the windows
def col2im(columns, shape, kernel, stride):
    (C, H, W), (R, S) = shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    x, times = np.zeros(shape), np.zeros(shape)
    for p, q in np.ndindex(P, Q):
        place = np.s_[:, p * stride : p * stride + R, q * stride : q * stride + S]
        x[place] += columns[:, p * Q + q].reshape(C, R, S)
        times[place] += 1
    return x / np.maximum(times, 1)


# %% 3.4: the stride is missing from where a window begins
def col2im(columns, shape, kernel, stride):
    (C, H, W), (R, S) = shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    x = np.zeros(shape)
    for p, q in np.ndindex(P, Q):
        x[:, p : p + R, q : q + S] += columns[:, p * Q + q].reshape(C, R, S)
    return x


# %% 3.4: the columns are read in the wrong order
def col2im(columns, shape, kernel, stride):
    (C, H, W), (R, S) = shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    x = np.zeros(shape)
    for p, q in np.ndindex(P, Q):
        top, left = p * stride, q * stride
        x[:, top : top + R, left : left + S] += columns[:, q * P + p].reshape(C, R, S)
    return x


# %% 3.4: the patches are turned over
def col2im(columns, shape, kernel, stride):
    (C, H, W), (R, S) = shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    x = np.zeros(shape)
    for p, q in np.ndindex(P, Q):
        top, left = p * stride, q * stride
        patch = columns[:, p * Q + q].reshape(C, S, R).transpose(0, 2, 1)
        x[:, top : top + R, left : left + S] += patch
    return x


# %% 3.5: joined along the images
def conv2d_in_groups(x, weight, groups):
    c, f = x.shape[1] // groups, len(weight) // groups
    return F.cat([F.conv2d(x[:, g * c : (g + 1) * c], weight[g * f : (g + 1) * f]) for g in range(groups)])


# %% 3.5: the channels are dealt out in turn
def conv2d_in_groups(x, weight, groups):
    f = len(weight) // groups
    parts = [F.conv2d(x[:, g::groups], weight[g * f : (g + 1) * f]) for g in range(groups)]
    return F.cat(parts, dim=1)


# %% 3.5: no gradient can flow back
def conv2d_in_groups(x, weight, groups):
    c, f = x.shape[1] // groups, len(weight) // groups
    parts = [F.conv2d(x[:, g * c : (g + 1) * c], weight[g * f : (g + 1) * f]).numpy() for g in range(groups)]
    return mt.tensor(np.concatenate(parts, axis=1))


# %% 3.5: do without that argument
def conv2d_in_groups(x, weight, groups):
    return F.conv2d(x, weight, groups=groups)


# %% 3.5: every group uses the first group's filters
def conv2d_in_groups(x, weight, groups):
    c, f = x.shape[1] // groups, len(weight) // groups
    return F.cat([F.conv2d(x[:, g * c : (g + 1) * c], weight[:f]) for g in range(groups)], dim=1)


# %% 3.5: a group has C // groups channels of x
def conv2d_in_groups(x, weight, groups):
    c, f = x.shape[1] // 2, len(weight) // 2
    return F.cat([F.conv2d(x[:, :c], weight[:f]), F.conv2d(x[:, c:], weight[f:])], dim=1)


# %% 3.5: for F // groups filters of weight
def conv2d_in_groups(x, weight, groups):
    f = len(weight) // groups
    return F.cat([F.conv2d(x, weight[g * f : (g + 1) * f]) for g in range(groups)], dim=1)


# %% 3.1: binds more strongly than -
def output_size(n, kernel, stride, padding):
    return n + 2 * padding - kernel // stride + 1


# %% 3.5: is used for something else
def conv2d_in_groups(x, weight, groups):
    C, F = x.shape[1], weight.shape[0]
    parts = []
    for g in range(groups):
        mine = x[:, g * C // groups : (g + 1) * C // groups]
        parts.append(F.conv2d(mine, weight[g * F // groups : (g + 1) * F // groups]))
    return F.cat(parts, dim=1)


# %% 3.5: the engine says dim
def conv2d_in_groups(x, weight, groups):
    C, filters = x.shape[1] // groups, weight.shape[0] // groups
    parts = []
    for g in range(groups):
        parts.append(F.conv2d(x[:, g * C : (g + 1) * C], weight[g * filters : (g + 1) * filters]))
    return F.cat(parts, axis=1)


# %% 3.5: no gradient arrives
def conv2d_in_groups(x, weight, groups):
    C, filters = x.shape[1] // groups, weight.shape[0] // groups
    parts = []
    for g in range(groups):
        mine = weight[g * filters : (g + 1) * filters].detach()
        parts.append(F.conv2d(x[:, g * C : (g + 1) * C], mine))
    return F.cat(parts, dim=1)
