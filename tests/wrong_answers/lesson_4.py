# Wrong answers to the exercises of lesson 4 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import numpy as np


# %% 4.1: the last window is missing
def windows_that_see(i, n, kernel, stride):
    return sum(start <= i < start + kernel for start in range(0, n - kernel, stride))


# %% 4.1: only those that fit exist
def windows_that_see(i, n, kernel, stride):
    return sum(start <= i < start + kernel for start in range(0, n, stride))


# %% 4.1: windows that begin before pixel 0
def windows_that_see(i, n, kernel, stride):
    return sum((i - offset) % stride == 0 for offset in range(kernel))


# %% 4.1: a pixel too long
def windows_that_see(i, n, kernel, stride):
    return sum(start <= i <= start + kernel for start in range(0, n - kernel + 1, stride))


# %% 4.1: not 1
def windows_that_see(i, n, kernel, stride):
    return sum(start <= i < start + kernel for start in range(n - kernel + 1))


# %% 4.1: the number of all windows
def windows_that_see(i, n, kernel, stride):
    return (n - kernel) // stride + 1


# %% 4.1: expected 2
def windows_that_see(i, n, kernel, stride):
    return 1


# %% 4.2: += where = is
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            window = x[p * stride : p * stride + kernel, q * stride : q * stride + kernel]
            r, s = divmod(int(window.argmax()), kernel)
            gx[p * stride + r, q * stride + s] = gy[p, q]
    return gx


# %% 4.2: argmax counts row by row
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            window = x[p * stride : p * stride + kernel, q * stride : q * stride + kernel]
            s, r = divmod(int(window.argmax()), kernel)
            gx[p * stride + r, q * stride + s] += gy[p, q]
    return gx


# %% 4.2: the place inside the window
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            window = x[p * stride : p * stride + kernel, q * stride : q * stride + kernel]
            r, s = divmod(int(window.argmax()), kernel)
            gx[r, s] += gy[p, q]
    return gx


# %% 4.2: every tied pixel receives the gradient
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            rows, columns = slice(p * stride, p * stride + kernel), slice(q * stride, q * stride + kernel)
            gx[rows, columns] += gy[p, q] * (x[rows, columns] == x[rows, columns].max())
    return gx


# %% 4.2: ties go to the last pixel here
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            best, where = -np.inf, None
            for i in range(p * stride, p * stride + kernel):
                for j in range(q * stride, q * stride + kernel):
                    if x[i, j] >= best:
                        best, where = x[i, j], (i, j)
            gx[where] += gy[p, q]
    return gx


# %% 4.2: begin at 0
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            best, where = 0, None
            for i in range(p * stride, p * stride + kernel):
                for j in range(q * stride, q * stride + kernel):
                    if x[i, j] > best:
                        best, where = x[i, j], (i, j)
            if where is not None:
                gx[where] += gy[p, q]
    return gx


# %% 4.2: only the one that won
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            gx[p * stride : p * stride + kernel, q * stride : q * stride + kernel] += gy[p, q]
    return gx


# %% 4.2: gy, is not used
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            window = x[p * stride : p * stride + kernel, q * stride : q * stride + kernel]
            r, s = divmod(int(window.argmax()), kernel)
            gx[p * stride + r, q * stride + s] += 1
    return gx


# %% 4.2: stops with IndexError
def max_pool_gradient(x, gy, kernel, stride):
    gx = np.zeros(x.shape)
    for p in range(x.shape[0]):
        for q in range(x.shape[1]):
            gx[p * stride, q * stride] += gy[p, q]
    return gx


# %% 4.3: alpha is divided by n
def lrn(x, n, alpha, beta, k):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        energy = (x[:, max(0, c - n // 2) : c + n // 2 + 1] ** 2).sum(axis=1)
        y[:, c] = x[:, c] / (k + alpha / n * energy) ** beta
    return y


# %% 4.3: a slice stops before its end
def lrn(x, n, alpha, beta, k):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        energy = (x[:, max(0, c - n // 2) : c + n // 2] ** 2).sum(axis=1)
        y[:, c] = x[:, c] / (k + alpha * energy) ** beta
    return y


# %% 4.3: which Python counts from the end
def lrn(x, n, alpha, beta, k):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        energy = (x[:, c - n // 2 : c + n // 2 + 1] ** 2).sum(axis=1)
        y[:, c] = x[:, c] / (k + alpha * energy) ** beta
    return y


# %% 4.3: goes round to the other end
def lrn(x, n, alpha, beta, k):
    energy = sum(np.roll(x**2, shift, axis=1) for shift in range(-(n // 2), n // 2 + 1))
    return x / (k + alpha * energy) ** beta


# %% 4.3: normalised already
def lrn(x, n, alpha, beta, k):
    y = x.copy()
    for c in range(x.shape[1]):
        energy = (y[:, max(0, c - n // 2) : c + n // 2 + 1] ** 2).sum(axis=1)
        y[:, c] = y[:, c] / (k + alpha * energy) ** beta
    return y


# %% 4.3: it writes into its argument
def lrn(x, n, alpha, beta, k):
    for c in range(x.shape[1]):
        energy = (x[:, max(0, c - n // 2) : c + n // 2 + 1] ** 2).sum(axis=1)
        x[:, c] /= (k + alpha * energy) ** beta
    return x


# %% 4.3: sum over axis 1 alone
def lrn(x, n, alpha, beta, k):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        energy = (x[:, max(0, c - n // 2) : c + n // 2 + 1] ** 2).sum()
        y[:, c] = x[:, c] / (k + alpha * energy) ** beta
    return y


# %% 4.3: n // 2 to each side
def lrn(x, n, alpha, beta, k):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        energy = (x[:, max(0, c - n) : c + n + 1] ** 2).sum(axis=1)
        y[:, c] = x[:, c] / (k + alpha * energy) ** beta
    return y


# %% 4.3: the channel itself belongs to its window
def lrn(x, n, alpha, beta, k):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        others = [j for j in range(max(0, c - n // 2), min(x.shape[1], c + n // 2 + 1)) if j != c]
        y[:, c] = x[:, c] / (k + alpha * (x[:, others] ** 2).sum(axis=1)) ** beta
    return y


# %% 4.4: multiply by size first
def settings_here(who, size, alpha, k):
    return size, alpha, k


# %% 4.4: a radius is not a size
def settings_here(who, size, alpha, k):
    return (size, alpha, k) if who == "caffe" else (size, alpha * size, k)


# %% 4.4: do not divide
def settings_here(who, size, alpha, k):
    if who == "tensorflow":
        size = 2 * size + 1
    return (size, alpha, k) if who == "caffe" else (size, alpha / size, k)


# %% 4.4: nothing changes
def settings_here(who, size, alpha, k):
    if who == "tensorflow":
        size = 2 * size + 1
    return size, alpha * size, k


# %% 4.4: not by the radius
def settings_here(who, size, alpha, k):
    if who == "caffe":
        return size, alpha, k
    return (2 * size + 1 if who == "tensorflow" else size), alpha * size, k


# %% 4.4: the one in the middle counts
def settings_here(who, size, alpha, k):
    if who == "tensorflow":
        size = 2 * size
    return size, (alpha if who == "caffe" else alpha * size), k


# %% 4.4: k is the one that was given
def settings_here(who, size, alpha, k):
    if who == "tensorflow":
        size = 2 * size + 1
    return size, (alpha if who == "caffe" else alpha * size), (2.0 if who == "paper" else 1.0)


# %% 4.4: expected a whole number
def settings_here(who, size, alpha, k):
    if who == "tensorflow":
        size = 2 * size + 1
    return size / 1, (alpha if who == "caffe" else alpha * size), k


# %% 4.5: which is this engine's way
def paper_dropout(xp, x, u, p, training):
    factor = (u >= p) / (1 - p) if training else 1
    return x * factor, (lambda g: g * factor,)


# %% 4.5: the wrong ones are dropped
def paper_dropout(xp, x, u, p, training):
    factor = (u < p) if training else 1 - p
    return x * factor, (lambda g: g * factor,)


# %% 4.5: multiply by the probability of being kept
def paper_dropout(xp, x, u, p, training):
    factor = (u >= p) if training else p
    return x * factor, (lambda g: g * factor,)


# %% 4.5: the paper multiplies by 1 - p
def paper_dropout(xp, x, u, p, training):
    factor = (u >= p) if training else np.ones(x.shape)
    return x * factor, (lambda g: g * factor,)


# %% 4.5: there all of them take part
def paper_dropout(xp, x, u, p, training):
    factor = u >= p
    return x * factor, (lambda g: g * factor,)


# %% 4.5: g is passed on as it came
def paper_dropout(xp, x, u, p, training):
    factor = (u >= p) if training else 1 - p
    return x * factor, (lambda g: g,)


# %% 4.5: in testing the gradient is masked
def paper_dropout(xp, x, u, p, training):
    mask = u >= p
    return (x * mask if training else x * (1 - p)), (lambda g: g * mask,)


# %% 4.5: a missing comma
def paper_dropout(xp, x, u, p, training):
    factor = (u >= p) if training else 1 - p
    return x * factor, (lambda g: g * factor)


# %% 4.5: which units are dropped is decided by u
def paper_dropout(xp, x, u, p, training):
    factor = (np.random.random(x.shape) >= p) if training else 1 - p
    return x * factor, (lambda g: g * factor,)


# %% 4.5: settings have none
def paper_dropout(xp, x, u, p, training):
    factor = (u >= p) if training else 1 - p
    return x * factor, (lambda g: g * factor, None)


# %% 4.5: got
def paper_dropout(xp, x, u, p, training):
    factor = (u > p) * 1.0 if training else 1 - p
    return x * factor, (lambda g: g * factor,)
