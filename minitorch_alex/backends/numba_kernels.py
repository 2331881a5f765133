"""The kernels of the numba backend: serial loops over a few images, compiled by Numba on first use and cached.

Each works on whole contiguous arrays that the caller has allocated, and on all that it is given of them: threads are
the caller's business. Everything a kernel calls stands in this file: numba_compiler.py says why.

Letters: N images, C channels, H x W pixels, R x S taps, P x Q outputs; (v, h) are the vertical and horizontal steps.
"""

from __future__ import annotations

import math

import numpy as np

from .numba_compiler import in_any_order, kernel


@kernel
def first_and_last(count, size, stride, offset):
    """The outputs p in [first, last) whose pixel p*stride + offset lies inside [0, size)."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = 0 if size <= offset else (size - offset + stride - 1) // stride
    last = min(last, count)
    return min(first, last), last


@kernel
def fill(to, i, count, value):
    """to[i : i+count] = value."""
    start = np.uint64(i)  # unsigned, here and below: Numba need not ask whether the index is a negative one
    for q in range(np.uint64(count)):
        to[start + q] = value


@kernel
def im2col(x, columns, stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h):
    """x (N, C, H, W) -> columns (C, R, S, N, P, Q), zeros where a window hangs over the edge."""
    N, C, H, W = x.shape
    R, S, P, Q = columns.shape[1], columns.shape[2], columns.shape[4], columns.shape[5]
    pixels, out, step = x.reshape(-1), columns.reshape(-1), np.uint64(stride_h)
    for c in range(C):
        for r in range(R):
            top = r * dilation_v - pad_v
            p_first, p_last = first_and_last(P, H, stride_v, top)
            for s in range(S):
                left = s * dilation_h - pad_h
                q_first, q_last = first_and_last(Q, W, stride_h, left)
                for n in range(N):
                    base = (((c * R + r) * S + s) * N + n) * P * Q
                    fill(out, base, p_first * Q, 0)
                    fill(out, base + p_last * Q, (P - p_last) * Q, 0)
                    for p in range(p_first, p_last):
                        fill(out, base + p * Q, q_first, 0)
                        fill(out, base + p * Q + q_last, Q - q_last, 0)
                        h = p * stride_v + top
                        to = np.uint64(base + p * Q + q_first)
                        source = np.uint64(((n * C + c) * H + h) * W + q_first * stride_h + left)
                        for q in range(np.uint64(q_last - q_first)):
                            out[to + q] = pixels[source + q * step]


@kernel
def col2im(columns, x, stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h):
    """columns (C, R, S, N, P, Q) -> x (N, C, H, W): every entry is added to the pixel that im2col reads it from."""
    N, C, H, W = x.shape
    R, S, P, Q = columns.shape[1], columns.shape[2], columns.shape[4], columns.shape[5]
    pixels, values, step = x.reshape(-1), columns.reshape(-1), np.uint64(stride_h)
    pixels[:] = 0
    for c in range(C):
        for r in range(R):
            top = r * dilation_v - pad_v
            p_first, p_last = first_and_last(P, H, stride_v, top)
            for s in range(S):
                left = s * dilation_h - pad_h
                q_first, q_last = first_and_last(Q, W, stride_h, left)
                for n in range(N):
                    for p in range(p_first, p_last):
                        h = p * stride_v + top
                        to = np.uint64(((n * C + c) * H + h) * W + q_first * stride_h + left)
                        source = np.uint64(((((c * R + r) * S + s) * N + n) * P + p) * Q + q_first)
                        for q in range(np.uint64(q_last - q_first)):
                            pixels[to + q * step] += values[source + q]


@kernel
def relu(x, y):
    """y (n,) = max(x, 0), and NaN where x is NaN."""
    for i in range(x.size):
        y[i] = 0 if x[i] <= 0 else x[i]


@kernel
def relu_gradient(gy, y, gx):
    """gx (n,) = gy where y > 0 (or NaN), else 0."""
    for i in range(y.size):
        gx[i] = 0 if y[i] <= 0 else gy[i]


@kernel
def split_by_phase(x, phases, stride_v, stride_h, pad_v, pad_h):
    """x (H, W) -> phases[v, h, i, j] = x[i*stride_v + v - pad_v, j*stride_h + h - pad_h], -infinity outside of x."""
    H, W = x.shape
    V, across, rows, pitch = phases.shape
    pixels, out, step = x.reshape(-1), phases.reshape(-1), np.uint64(stride_h)
    for v in range(V):
        for h in range(across):
            left = h - pad_h
            first, last = first_and_last(pitch, W, stride_h, left)
            for i in range(rows):
                row = i * stride_v + v - pad_v
                inside = 0 <= row < H
                begin, end = first if inside else pitch, last if inside else pitch
                base = ((v * across + h) * rows + i) * pitch
                to, source = np.uint64(base), np.uint64(row * W + left)
                fill(out, base, begin, -np.inf)
                for j in range(np.uint64(begin), np.uint64(end)):
                    out[to + j] = pixels[source + j * step]
                fill(out, base + end, pitch - end, -np.inf)


@kernel
def keep_larger(values, start, tap, best, winner):
    """Where values[start + i] is larger than best[i], or NaN: there it takes its place, and `tap` that in winner[i]."""
    start = np.uint64(start)
    for i in range(np.uint64(best.size)):
        value = values[start + i]
        better = (value > best[i]) | (value != value)
        best[i] = value if better else best[i]
        winner[i] = tap if better else winner[i]


@kernel
def max_pool2d(x, y, winner, R, S, stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h):
    """x (n, H, W) -> y, winner (n, P, Q): the first maximum in scan order, or the last NaN; winner = r*S + s.

    An image is split into its phases first, padding included. Then the pixels that one tap meets in all the windows lie
    together, `pitch` from row to row, and comparing them with the best so far is one loop without a branch.
    """
    H, W, P, Q = x.shape[1], x.shape[2], y.shape[1], y.shape[2]
    reach_v, reach_h = (R - 1) * dilation_v, (S - 1) * dilation_h
    rows, pitch, across = P + reach_v // stride_v, Q + reach_h // stride_h, min(stride_h, reach_h + 1)
    phases = np.empty((min(stride_v, reach_v + 1), across, rows, pitch), x.dtype)
    size = (P - 1) * pitch + Q
    best, first, earliest = np.empty(size, x.dtype), np.empty(size, np.int32), np.empty(size, np.int32)
    earliest[:] = -1
    for p in range(P):
        for q in range(Q):
            for tap in range(R * S):  # the first inside the image wins where all are -infinity
                h, w = p * stride_v - pad_v + tap // S * dilation_v, q * stride_h - pad_h + tap % S * dilation_h
                if 0 <= h < H and 0 <= w < W and earliest[p * pitch + q] < 0:
                    earliest[p * pitch + q] = tap
    starts = np.empty(R * S, np.int64)  # where the pixels of each tap lie
    for tap in range(R * S):
        down, right = tap // S * dilation_v, tap % S * dilation_h
        phase = down % stride_v * across + right % stride_h
        starts[tap] = (phase * rows + down // stride_v) * pitch + right // stride_h
    for n in range(x.shape[0]):
        split_by_phase(x[n], phases, stride_v, stride_h, pad_v, pad_h)
        for i in range(size):  # not `first[:] = earliest`, which takes two seconds to compile
            best[i], first[i] = -np.inf, earliest[i]
        for tap in range(R * S):
            keep_larger(phases.reshape(-1), starts[tap], np.int32(tap), best, first)
        for p in range(P):
            for q in range(Q):
                y[n, p, q] = best[p * pitch + q]
                winner[n, p, q] = first[p * pitch + q]


@kernel
def max_pool2d_gradient(gy, winner, gx, R, S, stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h):
    """gy, winner (n, P, Q) -> gx (n, H, W): each winner receives the gradient of every window that it won."""
    P, Q, W = gy.shape[1], gy.shape[2], gx.shape[2]
    offsets = np.empty(R * S, np.int64)  # from the corner of a window to its taps
    for tap in range(R * S):
        offsets[tap] = tap // S * dilation_v * W + tap % S * dilation_h
    gx[:] = 0
    for n in range(gy.shape[0]):
        pixels = gx[n].reshape(-1)
        for p in range(P):
            corner = (p * stride_v - pad_v) * W - pad_h
            for q in range(Q):
                tap = winner[n, p, q]
                if tap >= 0:
                    pixels[corner + q * stride_h + offsets[tap]] += gy[n, p, q]


@kernel
def shrink(scale, beta):
    """scale^-beta; for the paper's 3/4 by two square roots, which are vector instructions as a power is not."""
    if beta == 0.75:
        root = math.sqrt(scale)
        return 1 / (root * math.sqrt(root))
    return scale**-beta


@kernel
def local_response_norm(x, y, scale, start, stop, before, after, weight, beta, k):
    """x (n, C, M) -> scale = k + weight * (sum of x^2 over channels c-before ... c+after), y = x * scale^-beta.

    Here and below only pixels start ... stop of the M.
    """
    N, C, _ = x.shape
    total = np.empty(stop - start, x.dtype)
    for n in range(N):
        for c in range(C):
            total[:] = 0
            for j in range(max(0, c - before), min(C, c + after + 1)):
                near = x[n, j, start:stop]
                for m in range(near.size):
                    total[m] += near[m] * near[m]
            pixels, sums, out = x[n, c, start:stop], scale[n, c, start:stop], y[n, c, start:stop]
            for m in range(pixels.size):
                sums[m] = k + weight * total[m]
                out[m] = pixels[m] * shrink(sums[m], beta)


@kernel
def local_response_norm_gradient(gy, x, scale, gx, start, stop, before, after, weight, beta):
    """gx = gy * scale^-beta - 2 weight beta x * (sum over channels c-after ... c+before of gy x scale^(-beta-1))."""
    N, C, _ = x.shape
    shrunk, part = np.empty((C, stop - start), x.dtype), np.empty((C, stop - start), x.dtype)
    for n in range(N):
        for c in range(C):
            g, pixels, total = gy[n, c, start:stop], x[n, c, start:stop], scale[n, c, start:stop]
            for m in range(total.size):
                shrunk[c, m] = g[m] * shrink(total[m], beta)
                part[c, m] = shrunk[c, m] * pixels[m] / total[m]
        for c in range(C):
            seen_by, pixels = gx[n, c, start:stop], x[n, c, start:stop]
            seen_by[:] = 0
            for j in range(max(0, c - after), min(C, c + before + 1)):
                for m in range(seen_by.size):
                    seen_by[m] += part[j, m]
            for m in range(seen_by.size):
                seen_by[m] = shrunk[c, m] - weight * beta * 2 * pixels[m] * seen_by[m]


@in_any_order
def total_of(values):
    """The sum of (M,), in float64."""
    total = 0.0
    for i in range(values.size):
        total += values[i]
    return total


@kernel
def channel_sums(gy, sums, first):
    """gy (N, F, M) -> sums (f,) of float64: channels first, first + 1, ... summed over images and pixels."""
    sums[:] = 0
    for n in range(gy.shape[0]):
        for f in range(sums.size):
            sums[f] += total_of(gy[n, first + f])


@kernel
def softmax_cross_entropy(x, labels, loss, gradient, ignore_index, slope):
    """x (n, K), labels (n,) -> loss (n,) = -log softmax(x)[label], gradient = slope * (softmax(x) - one-hot(label))."""
    for n in range(x.shape[0]):
        largest = -np.inf
        for k in range(x.shape[1]):
            largest = max(largest, x[n, k])
        total = 0.0  # in float64, as everything beside it
        for k in range(x.shape[1]):
            gradient[n, k] = math.exp(x[n, k] - x.dtype.type(largest))
            total += gradient[n, k]
        counts = labels[n] != ignore_index
        loss[n] = 0
        for k in range(x.shape[1]):
            hot = counts and k == labels[n]
            if hot:
                loss[n] = math.log(total) - (x[n, k] - largest)
            gradient[n, k] = (slope if counts else 0) * (gradient[n, k] / total - hot)


@kernel
def sgd_paper(w, g, v, new, lr, momentum, decay_rate):
    """v <- m v - (d e) w - e g, new = w + v: minitorch_alex/optim.py."""
    for i in range(w.size):
        v[i] = momentum * v[i] - decay_rate * w[i] - lr * g[i]
        new[i] = w[i] + v[i]


@kernel
def sgd_torch(w, g, v, new, lr, momentum, decay, share, first, nesterov):
    """v <- m v + share (g + d w), or g + d w at first; new = w - e v, or nesterov's w - e (g + d w + m v)."""
    for i in range(w.size):
        slope = g[i] + decay * w[i] if decay else g[i]
        v[i] = slope if first else momentum * v[i] + share * slope
        new[i] = w[i] - lr * (slope + momentum * v[i] if nesterov else v[i])


# -- Philox: minitorch_alex/philox.py explains it; here one block at a time --------
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
MULTIPLIER_A, MULTIPLIER_C = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
KEY_STEP_A, KEY_STEP_C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)


@kernel
def high_word(a, b):
    """The upper 64 bits of a 64 x 64 bit product, from four products of halves."""
    middle = (a >> HALF) * (b & LOW) + ((a & LOW) * (b & LOW) >> HALF)
    middle_2 = (a & LOW) * (b >> HALF) + (middle & LOW)
    return (a >> HALF) * (b >> HALF) + (middle >> HALF) + (middle_2 >> HALF)


@kernel
def philox(key_a, key_c, a, b, c, d):
    """philox4x64-10: a counter of four words under a key of two -> four random words."""
    for _ in range(10):
        new_a, new_c = high_word(c, MULTIPLIER_C) ^ b ^ key_a, high_word(a, MULTIPLIER_A) ^ d ^ key_c
        b, d = c * MULTIPLIER_C, a * MULTIPLIER_A
        a, c = new_a, new_c
        key_a += KEY_STEP_A
        key_c += KEY_STEP_C
    return a, b, c, d


@kernel
def dropout(x, y, start, key_a, key_c, step, call, threshold, scale):
    """y (n,) = x times the mask's elements 16*start ...: 16 bits each, `scale` where they are >= threshold, else 0."""
    bits, sixteen = np.uint64(0xFFFF), np.uint64(16)
    for block in range((x.size + 15) // 16):
        counter = np.uint64(start + block + 1)
        for i, word in enumerate(philox(key_a, key_c, counter, step, call, np.uint64(0))):
            for j in range(4):
                at = 16 * block + 4 * i + j
                if at < x.size:
                    y[at] = x[at] * (scale if np.int64(word & bits) >= threshold else 0)
                word = word >> sixteen
