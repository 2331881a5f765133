"""Normalisation in plain array code: across channels, across pixels, over a batch; each with its gradient."""

from __future__ import annotations

from .array_module import Array, ArrayModule


class NumpyNormalization(ArrayModule):
    """The part of the reference backend that normalises. Channels are axis 1: x (N, C, ...)."""

    # -- local response normalisation: channels are axis 1 --------------------
    def window_sum(self, a: Array, before: int, after: int) -> Array:
        """For each channel the sum over channels c-before ... c+after, as far as they exist."""
        C = a.shape[1]
        out = self.xp.zeros_like(a)
        for shift in range(-min(before, C), min(after, C) + 1):
            to, source = slice(max(0, -shift), C - max(0, shift)), slice(max(0, shift), C - max(0, -shift))
            out[:, to] += a[:, source]
        return out

    def local_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        """y = x * scale^-beta and scale = k + alpha/size * (sum of x^2 over the `size` channels around each)."""
        scale = k + alpha / size * self.window_sum(x * x, size // 2, (size - 1) // 2)
        return x * scale**-beta, scale

    def local_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        """gx = gy * scale^-beta - 2 alpha/size beta x * (sum of gy x scale^(-beta-1) over the channels that saw x).

        A channel is seen by those whose window reaches it, so the second sum runs over the mirrored window.
        """
        shrink = scale**-beta
        seen_by = self.window_sum(gy * x * shrink / scale, (size - 1) // 2, size // 2)
        return gy * shrink - 2 * alpha / size * beta * x * seen_by

    # -- spatial response normalisation: pixels are the last two axes ---------
    def spatial_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        """y = x * scale^-beta and scale = k + alpha/size^2 * (sum of x^2 over the size x size pixels around each)."""
        scale = k + alpha / size**2 * self._pixel_sum(x * x, size // 2, (size - 1) // 2)
        return x * scale**-beta, scale

    def spatial_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        """As across channels: the second sum runs over the pixels whose windows reach this one."""
        shrink = scale**-beta
        seen_by = self._pixel_sum(gy * x * shrink / scale, (size - 1) // 2, size // 2)
        return gy * shrink - 2 * alpha / size**2 * beta * x * seen_by

    def _pixel_sum(self, a: Array, before: int, after: int) -> Array:
        """For each pixel the sum over rows h-before ... h+after and columns w-before ... w+after."""
        rows = self.window_sum(a.swapaxes(1, -2), before, after).swapaxes(1, -2)
        return self.window_sum(rows.swapaxes(1, -1), before, after).swapaxes(1, -1)

    # -- batch normalisation: channels are axis 1, z = (x - mean) / spread ----
    def batch_norm_statistics(self, x: Array, eps: float) -> tuple[Array, Array, Array]:
        """mean and (biased) var of each channel in float64, and spread = sqrt(var + eps) in x's dtype; all (C,)."""
        axes = (0, *range(2, x.ndim))
        mean = x.mean(axis=axes, dtype="float64")
        var = (_distance(x, mean) ** 2).mean(axis=axes, dtype="float64")
        return mean, var, self.xp.sqrt(var + eps).astype(x.dtype)

    def batch_norm(self, x: Array, mean: Array, spread: Array, weight: Array | None, bias: Array | None) -> Array:
        """y = z * weight + bias; weight and bias are (C,), or None for 1 and 0."""
        y = _distance(x, mean) / _per_channel(spread, x)
        y = y if weight is None else y * _per_channel(weight, x)
        return y if bias is None else y + _per_channel(bias, x)

    def batch_norm_gradients(
        self, gy: Array, x: Array, mean: Array, spread: Array, weight: Array | None, of_the_batch: bool
    ) -> tuple[Array, Array, Array]:
        """gx, and the sums over each channel of gy * z and of gy: the gradients of weight and bias.

        Where mean and spread are those `of_the_batch`, they move with x, and what a shift and a stretch of the whole
        batch would do is taken out of gx.
        """
        axes, values = (0, *range(2, x.ndim)), x.size // max(1, x.shape[1])  # in a channel
        z = _distance(x, mean) / _per_channel(spread, x)
        gw, gb = (gy * z).sum(axis=axes), gy.sum(axis=axes)
        gx = gy
        if of_the_batch:
            gx = gy - _per_channel(gb, x) / max(1, values) - z * (_per_channel(gw, x) / max(1, values))
        gain = 1 / spread if weight is None else weight / spread
        return gx * _per_channel(gain, x), gw, gb


def _per_channel(a: Array, x: Array) -> Array:
    """One number per channel (C,), shaped to meet x (N, C, ...)."""
    return a.reshape((1, -1) + (1,) * (x.ndim - 2))


def _distance(x: Array, mean: Array) -> Array:
    """x - mean, with the digits of the mean that x's own dtype has no room for."""
    mean = _per_channel(mean, x)
    rounded = mean.astype(x.dtype)
    return (x - rounded) - (mean - rounded).astype(x.dtype)
