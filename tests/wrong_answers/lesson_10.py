# Wrong answers to the exercises of lesson 10 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import math

import numpy as np


# %% 10.1: the smaller of the two limits counts
def roofline(operations, moved, peak_operations, peak_bytes):
    return max(peak_operations, operations / moved * peak_bytes)


# %% 10.1: this is what memory allows, and arithmetic is not that fast
def roofline(operations, moved, peak_operations, peak_bytes):
    return operations / moved * peak_bytes


# %% 10.1: for which memory does not bring the numbers fast enough
def roofline(operations, moved, peak_operations, peak_bytes):
    return peak_operations


# %% 10.1: this is the least time, in seconds
def roofline(operations, moved, peak_operations, peak_bytes):
    return max(operations / peak_operations, moved / peak_bytes)


# %% 10.1: so their times do not add up
def roofline(operations, moved, peak_operations, peak_bytes):
    return operations / (operations / peak_operations + moved / peak_bytes)


# %% 10.1: moved / operations are bytes per operation
def roofline(operations, moved, peak_operations, peak_bytes):
    return min(peak_operations, moved / operations * peak_bytes)


# %% 10.1: memory allows that times the bytes a second
def roofline(operations, moved, peak_operations, peak_bytes):
    return min(peak_operations, operations / moved)


# %% 10.1: // cuts off the fraction
def roofline(operations, moved, peak_operations, peak_bytes):
    return min(peak_operations, operations // moved * peak_bytes)


# %% 10.1: in bytes a second, and no number of operations yet
def roofline(operations, moved, peak_operations, peak_bytes):
    return min(peak_operations, peak_bytes)


# %% 10.2: 6 multiplications, expected 4
def filter_of_two(d, g):
    return [d[p] * g[0] + d[p + 1] * g[1] for p in range(3)]


# %% 10.2: this is the definition
def filter_of_two(d, g):
    return np.correlate(d, g)


# %% 10.2: products that occur in several outputs count each time
def filter_of_two(d, g):
    return [
        (d[0] - d[2]) * g[0] + (d[1] + d[2]) * (g[0] + g[1]) / 2 + (d[2] - d[1]) * (g[0] - g[1]) / 2,
        (d[1] + d[2]) * (g[0] + g[1]) / 2 - (d[2] - d[1]) * (g[0] - g[1]) / 2,
        (d[1] + d[2]) * (g[0] + g[1]) / 2 + (d[2] - d[1]) * (g[0] - g[1]) / 2 + (d[3] - d[1]) * g[1],
    ]


# %% 10.2: the halves are missing
def filter_of_two(d, g):
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[1]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1]), (d[2] - d[1]) * (g[0] - g[1])
    return [m0 + m1 + m2, m1 - m2, m1 + m2 + m3]


# %% 10.2: the product at infinity has the wrong sign
def filter_of_two(d, g):
    m0, m3 = (d[0] - d[2]) * g[0], (d[1] - d[3]) * g[1]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1]) / 2, (d[2] - d[1]) * (g[0] - g[1]) / 2
    return [m0 + m1 + m2, m1 - m2, m1 + m2 + m3]


# %% 10.2: the last output lacks the product at infinity
def filter_of_two(d, g):
    m0 = (d[0] - d[2]) * g[0]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1]) / 2, (d[2] - d[1]) * (g[0] - g[1]) / 2
    return [m0 + m1 + m2, m1 - m2, m1 + m2]


# %% 10.2: the second output is m1 - m2
def filter_of_two(d, g):
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[1]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1]) / 2, (d[2] - d[1]) * (g[0] - g[1]) / 2
    return [m0 + m1 + m2, m1 + m2, m1 + m2 + m3]


# %% 10.2: g has two taps here
def filter_of_two(d, g):
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[2]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1] + g[2]) / 2, (d[2] - d[1]) * (g[0] - g[1] + g[2]) / 2
    return [m0 + m1 + m2, m1 - m2 + m3]


# %% 10.2: the taps are turned round
def filter_of_two(d, g):
    return np.convolve(d, g, mode="valid")


# %% 10.2: which spreads: the transpose gathers
def filter_of_two(d, g):
    return np.convolve(d, g)


# %% 10.2: no longer counts: use d and g as they are
def filter_of_two(d, g):
    return np.correlate(np.array(d, float), np.array(g, float))


# %% 10.2: these are the four products
def filter_of_two(d, g):
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[1]
    return [m0, (d[1] + d[2]) * (g[0] + g[1]) / 2, (d[2] - d[1]) * (g[0] - g[1]) / 2, m3]


# %% 10.3: tiles at the edge that hang over are missing
def winograd_multiplications(P, Q, m, r):
    return (P // m) * (Q // m) * (m + r - 1) ** 2


# %% 10.3: a tile that hangs over counts in full
def winograd_multiplications(P, Q, m, r):
    return P * Q * (m + r - 1) ** 2 / m**2


# %% 10.3: rounded up along each axis, not at the end
def winograd_multiplications(P, Q, m, r):
    return math.ceil(P * Q / m**2) * (m + r - 1) ** 2


# %% 10.3: a tile has two dimensions
def winograd_multiplications(P, Q, m, r):
    return math.ceil(P / m) * math.ceil(Q / m) * (m + r - 1)


# %% 10.3: not m + r
def winograd_multiplications(P, Q, m, r):
    return math.ceil(P / m) * math.ceil(Q / m) * (m + r) ** 2


# %% 10.3: this is one tile
def winograd_multiplications(P, Q, m, r):
    return (m + r - 1) ** 2


# %% 10.3: this is the definition, with r^2
def winograd_multiplications(P, Q, m, r):
    return P * Q * r * r


# %% 10.3: Winograd takes (m + r - 1)^2 for the tile
def winograd_multiplications(P, Q, m, r):
    return -(-P // m) * -(-Q // m) * m**2 * r**2


# %% 10.3: this adds a tile where they fit exactly
def winograd_multiplications(P, Q, m, r):
    return (P // m + 1) * (Q // m + 1) * (m + r - 1) ** 2


# %% 10.4: what the shares leave over is missing
def amdahl(shares, speedups):
    return 1 / sum(share / speedup for share, speedup in zip(shares, speedups, strict=True))


# %% 10.4: this is the new time
def amdahl(shares, speedups):
    return 1 - sum(shares) + sum(share / speedup for share, speedup in zip(shares, speedups, strict=True))


# %% 10.4: speed-ups do not average
def amdahl(shares, speedups):
    return 1 - sum(shares) + sum(share * speedup for share, speedup in zip(shares, speedups, strict=True))


# %% 10.4: each part by itself, and the results multiplied
def amdahl(shares, speedups):
    return math.prod(1 / (1 - share + share / speedup) for share, speedup in zip(shares, speedups, strict=True))


# %% 10.4: only the first part is counted
def amdahl(shares, speedups):
    for share, speedup in zip(shares, speedups, strict=True):
        return 1 / (1 - share + share / speedup)
    return 1.0


# %% 10.4: only the last part is counted
def amdahl(shares, speedups):
    improved, left = 0, 1
    for share, speedup in zip(shares, speedups, strict=True):
        improved, left = share / speedup, 1 - share
    return 1 / (left + improved)


# %% 10.4: the old time in the place of what is left over
def amdahl(shares, speedups):
    return 1 / (1 + sum(share / speedup for share, speedup in zip(shares, speedups, strict=True)))


# %% 10.4: not share * speedup
def amdahl(shares, speedups):
    return 1 / (1 - sum(shares) + sum(share * speedup for share, speedup in zip(shares, speedups, strict=True)))


# %% 10.5: multiplies (5, 7) by (7, 6) at once
def blocked_matmul(a, b, tile):
    return a @ b


# %% 10.5: multiplies (3, 7) by (7, 3) at once
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i in range(0, len(a), tile):
        for j in range(0, b.shape[1], tile):
            y[i : i + tile, j : j + tile] = a[i : i + tile] @ b[:, j : j + tile]
    return y


# %% 10.5: add products up, += in place of =
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i in range(0, len(a), tile):
        for j in range(0, b.shape[1], tile):
            for k in range(0, len(b), tile):
                y[i : i + tile, j : j + tile] = a[i : i + tile, k : k + tile] @ b[k : k + tile, j : j + tile]
    return y


# %% 10.5: of which only a part is left, are missing
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i in range(0, len(a) // tile * tile, tile):
        for j in range(0, b.shape[1] // tile * tile, tile):
            for k in range(0, len(b) // tile * tile, tile):
                y[i : i + tile, j : j + tile] += a[i : i + tile, k : k + tile] @ b[k : k + tile, j : j + tile]
    return y


# %% 10.5: * multiplies element by element
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i in range(0, len(a), tile):
        for j in range(0, b.shape[1], tile):
            for k in range(0, len(b), tile):
                y[i : i + tile, j : j + tile] += a[i : i + tile, k : k + tile] * b[k : k + tile, j : j + tile]
    return y


# %% 10.5: a tile of a spans rows i and columns k, one of b rows k and columns j
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i in range(0, len(a), tile):
        for j in range(0, b.shape[1], tile):
            for k in range(0, len(b), tile):
                y[i : i + tile, j : j + tile] += a[i : i + tile, k : k + tile] @ b[j : j + tile, k : k + tile]
    return y


# %% 10.5: begin each at 0
def blocked_matmul(a, b, tile):
    y, total = np.zeros((len(a), b.shape[1])), 0
    for i in range(0, len(a), tile):
        for j in range(0, b.shape[1], tile):
            for k in range(0, len(b), tile):
                total = total + a[i : i + tile, k : k + tile] @ b[k : k + tile, j : j + tile]
            y[i : i + tile, j : j + tile] = total
    return y


# %% 10.5: no product of two tiles was seen
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i, k, j in np.ndindex(len(a), len(b), b.shape[1]):
        y[i, j] += a[i, k] * b[k, j]
    return y


# %% 10.5: products of tiles, expected 12
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]))
    for i, k, j in np.ndindex(len(a), len(b), b.shape[1]):
        y[i : i + 1, j : j + 1] += a[i : i + 1, k : k + 1] @ b[k : k + 1, j : j + 1]
    return y


# %% 10.5: multiplies (5, 7) by (7, 6) at once
def blocked_matmul(a, b, tile):
    return np.dot(a, b)


# %% 10.5: the result holds whole numbers
def blocked_matmul(a, b, tile):
    y = np.zeros((len(a), b.shape[1]), int)
    for i in range(0, len(a), tile):
        for j in range(0, b.shape[1], tile):
            for k in range(0, len(b), tile):
                product = a[i : i + tile, k : k + tile] @ b[k : k + tile, j : j + tile]
                y[i : i + tile, j : j + tile] += product.astype(int)
    return y
