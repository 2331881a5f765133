"""A window that slides over an image: what convolution and pooling have in common.

Letters: H x W pixels, R x S taps of the window, P x Q places where it stands.
"""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]
Shape = tuple[int, ...]


class Window(NamedTuple):
    """How a filter or a pool slides over an image: everything is (vertical, horizontal)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def extent(self, axis: int) -> int:
        """How many pixels one window spans, gaps between its taps included."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def output_size(self, H: int, W: int) -> Pair:
        """P, Q: how many windows fit along each axis.

        Floor by default. With `ceil_mode` a last, partial window is added where pixels are left over, provided that it
        starts inside the image or its leading padding.
        """
        sizes = []
        for axis, n in enumerate((H, W)):
            room, stride = n + 2 * self.padding[axis] - self.extent(axis), self.stride[axis]
            count = room // stride + 1
            if self.ceil_mode and room % stride and count * stride < n + self.padding[axis]:
                count += 1
            sizes.append(count)
        return sizes[0], sizes[1]

    def taps(self, P: int, Q: int):
        """(r, s, rows, columns) for each tap of the kernel: the padded pixels that it meets in all P x Q windows."""
        for r in range(self.kernel[0]):
            for s in range(self.kernel[1]):
                top, left = r * self.dilation[0], s * self.dilation[1]
                rows = slice(top, top + (P - 1) * self.stride[0] + 1, self.stride[0])
                columns = slice(left, left + (Q - 1) * self.stride[1] + 1, self.stride[1])
                yield r, s, rows, columns

    def surround(self, H: int, W: int) -> tuple[Pair, Pair]:
        """Zeros to add (before, after) along H and W so that every window lies inside the padded image."""
        P, Q = self.output_size(H, W)
        after = [
            max(0, (count - 1) * self.stride[axis] + self.extent(axis) - n - self.padding[axis])
            for axis, (n, count) in enumerate(((H, P), (W, Q)))
        ]
        return (self.padding[0], after[0]), (self.padding[1], after[1])
