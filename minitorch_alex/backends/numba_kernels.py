"""The kernels of the numba backend: serial loops over a few images, compiled by Numba on first use and cached.

Each works on whole contiguous arrays that the caller has allocated, and on all the images that it is given: threads are
the caller's business. `nogil` lets other threads run meanwhile. Everything a kernel calls stands in this file, because
Numba's cache notices a change in a kernel's own file only.

Letters: N images, C channels, H x W pixels, R x S taps, P x Q outputs; (v, h) are the vertical and horizontal steps.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")


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
def max_pool2d(x, y, winner, R, S, stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h):
    """x (N, C, H, W) -> y, winner (N, C, P, Q): the first maximum in scan order, or a NaN; winner = r*S + s.

    A row of outputs at a time and tap by tap: first the pixels that the tap meets are gathered, then they are compared.
    Neither loop has a branch, so both become vector code.
    """
    N, C, H, W = x.shape
    P, Q = y.shape[2], y.shape[3]
    pixels, maxima, winners, step = x.reshape(-1), y.reshape(-1), winner.reshape(-1), np.uint64(stride_h)
    row, best, first = np.empty(Q, x.dtype), np.empty(Q, x.dtype), np.empty(Q, np.int32)
    for image in range(N * C):
        for p in range(P):
            best[:] = -np.inf
            first[:] = -1
            for r in range(R):
                h = p * stride_v - pad_v + r * dilation_v
                if 0 <= h < H:
                    for s in range(S):
                        left = s * dilation_h - pad_h
                        q_first, q_last = first_and_last(Q, W, stride_h, left)
                        source = np.uint64((image * H + h) * W + q_first * stride_h + left)
                        to, count, tap = np.uint64(q_first), np.uint64(q_last - q_first), np.int32(r * S + s)
                        for q in range(count):
                            row[q] = pixels[source + q * step]
                        for q in range(count):
                            value = row[q]
                            better = (value > best[to + q]) | (value != value) | (first[to + q] < 0)
                            best[to + q] = value if better else best[to + q]
                            first[to + q] = tap if better else first[to + q]
            out = np.uint64((image * P + p) * Q)
            for q in range(np.uint64(Q)):
                maxima[out + q] = best[q]
                winners[out + q] = first[q]


@kernel
def max_pool2d_gradient(gy, winner, gx, S, stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h):
    """gy, winner (N, C, P, Q) -> gx (N, C, H, W): each winner receives the gradient of every window that it won."""
    N, C, P, Q = gy.shape
    gx[:] = 0
    for n in range(N):
        for c in range(C):
            for p in range(P):
                for q in range(Q):
                    tap = winner[n, c, p, q]
                    if tap >= 0:
                        h = p * stride_v - pad_v + tap // S * dilation_v
                        w = q * stride_h - pad_h + tap % S * dilation_h
                        gx[n, c, h, w] += gy[n, c, p, q]


@kernel
def shrink(scale, beta):
    """scale^-beta; for the paper's 3/4 by two square roots, which are vector instructions as a power is not."""
    if beta == 0.75:
        root = math.sqrt(scale)
        return 1 / (root * math.sqrt(root))
    return scale**-beta


@kernel
def local_response_norm(x, y, scale, before, after, weight, beta, k):
    """x (N, C, M) -> scale = k + weight * (sum of x^2 over channels c-before ... c+after), y = x * scale^-beta."""
    N, C, M = x.shape
    for n in range(N):
        for c in range(C):
            total = scale[n, c]
            total[:] = 0
            for j in range(max(0, c - before), min(C, c + after + 1)):
                for m in range(M):
                    total[m] += x[n, j, m] * x[n, j, m]
            for m in range(M):
                total[m] = k + weight * total[m]
                y[n, c, m] = x[n, c, m] * shrink(total[m], beta)


@kernel
def local_response_norm_gradient(gy, x, scale, gx, before, after, weight, beta):
    """gx = gy * scale^-beta - 2 weight beta x * (sum over channels c-after ... c+before of gy x scale^(-beta-1))."""
    N, C, M = x.shape
    shrunk = np.empty((C, M), x.dtype)
    part = np.empty((C, M), x.dtype)
    for n in range(N):
        for c in range(C):
            for m in range(M):
                shrunk[c, m] = gy[n, c, m] * shrink(scale[n, c, m], beta)
                part[c, m] = shrunk[c, m] * x[n, c, m] / scale[n, c, m]
        for c in range(C):
            seen_by = gx[n, c]
            seen_by[:] = 0
            for j in range(max(0, c - after), min(C, c + before + 1)):
                for m in range(M):
                    seen_by[m] += part[j, m]
            for m in range(M):
                gx[n, c, m] = shrunk[c, m] - weight * beta * 2 * x[n, c, m] * seen_by[m]


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
def dropout_mask(mask, start, key_a, key_c, step, call, threshold, scale):
    """mask (n,): elements 16*start ... of the stream's mask; 16 bits each, kept where they are >= threshold."""
    bits, sixteen = np.uint64(0xFFFF), np.uint64(16)
    for block in range((mask.size + 15) // 16):
        counter = np.uint64(start + block + 1)
        for i, word in enumerate(philox(key_a, key_c, counter, step, call, np.uint64(0))):
            for j in range(4):
                at = 16 * block + 4 * i + j
                if at < mask.size:
                    mask[at] = scale if np.int64(word & bits) >= threshold else 0
                word = word >> sixteen
