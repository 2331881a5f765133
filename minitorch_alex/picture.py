"""A Matplotlib figure that shows itself in a notebook. Made without pyplot, so no global state is touched."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure


class Picture(Figure):
    """As the last line of a notebook's cell it is displayed, whatever Matplotlib's backend is; `save` writes a file."""

    def save(self, path: Path | str) -> None:
        """Write it to a file, of the kind that its name ends in."""
        self.savefig(path, dpi=120)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:  # what IPython asks for
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=160)
        width, height = self.get_size_inches()
        return file.getvalue(), {"width": round(80 * width), "height": round(80 * height)}
