"""The lessons as web pages, to be read without Jupyter: `python -m minitorch_alex.exercises html`.

Each lesson is executed from notebooks/solved and becomes one page. Solutions are folded away below the exercise. The
pages need no network, no server and no script; pictures are within them.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ..progress import progress_bar
from .notebook import CHECK, SOLUTION, STUB, LessonError
from .pages import MARK, Heading, Markdown, Neighbour, highlighted, page, preformatted, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INDEX, MAP = "index.html", "map.html"
DEFAULT = "lessons-html"  # in the clone, where git ignores it; links to its files are made for there
SECONDS = 600  # for a cell
SOLUTION_MARK = re.compile(r"^ *### (?:BEGIN|END) SOLUTION\n?", re.MULTILINE)
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # a terminal's colours
NOTE = (
    '<p class="note">This page shows the lesson as it ran, solutions folded away. To run it, to change it and to have '
    "your answers checked, open <code>notebooks/{}</code> in Jupyter.</p>\n"
)
PRELUDE = "from minitorch_alex.exercises.edition import describe_figures\ndescribe_figures()\ndel describe_figures"


class FailedError(Exception):
    """A lesson that did not run to its end. The message names the cell."""


def build(notebooks: Path, out: Path, lessons: Sequence[int] = (), execute: bool = True) -> list[Path]:
    """Write the pages of all lessons in the folder `notebooks`, or of some, with index and map. Returns their paths.

    A file that is there and is none of these pages is not replaced: that is a LessonError, before anything is done.
    """
    found = {int(path.name[:2]): path for path in sorted((notebooks / "solved").glob("[0-9][0-9]_*.ipynb"))}
    for lesson in lessons:
        if lesson not in found:
            raise LessonError(f"there is no lesson {lesson} in {notebooks / 'solved'}")
    wanted = [found[lesson] for lesson in sorted(set(lessons) or found)]
    if not wanted:
        raise LessonError(f"there are no lessons in {notebooks / 'solved'}")
    texts = {INDEX: notebooks / "README.md", MAP: notebooks / "MAP.md"}
    written = [*texts, *(f"{path.stem}.html" for path in wanted)]
    for name in written:
        if (out / name).exists() and not is_ours(out / name):
            raise LessonError(f"{out / name} is there and no page of this edition: choose another folder with --out")
    titles = {f"{path.stem}.html": title_of(read(path)) for path in found.values()}
    site = Site(notebooks, out, {name: says for name, says in titles.items() if name in written or is_ours(out / name)})
    books = executed(wanted, notebooks) if execute else map(read, wanted)
    out.mkdir(parents=True, exist_ok=True)
    for name, path in texts.items():
        (out / name).write_text(text_page(path, name, site), encoding="utf-8")
    for path, book in zip(wanted, books, strict=True):
        (out / f"{path.stem}.html").write_text(lesson_page(book, path, site), encoding="utf-8")
    return [out / name for name in written]


def is_ours(path: Path) -> bool:
    """Whether it is a page of this edition."""
    return path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")[:1000]


def read(path: Path) -> Any:
    """A notebook."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise LessonError(f"{path}: this is no Jupyter notebook: {error}") from None


def title_of(book: Any) -> str:
    """The heading that it begins with."""
    return book.cells[0].source.partition("\n")[0].lstrip("# ")


# -- links --------------------------------------------------------------------------------
class Site:
    """The pages, and where the links of a text in the folder `notebooks` lead to from them.

    Lessons, index and map are pages, other files of the clone are themselves, as long as the pages are in the clone.
    """

    def __init__(self, notebooks: Path, out: Path, titles: dict[str, str]) -> None:
        self.notebooks, self.out = Path(os.path.abspath(notebooks)), Path(os.path.abspath(out))
        self.titles = titles
        self.pages = {"README.md": INDEX, "MAP.md": MAP}
        for name in titles:
            stem = name.removesuffix(".html")
            self.pages |= dict.fromkeys((f"{stem}.py", f"{stem}.ipynb", f"solved/{stem}.ipynb"), name)

    def link(self, target: str) -> str | None:
        """Where it leads; None from outside of the clone to a file in it."""
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:|//", path, re.IGNORECASE):
            return target
        if not path:
            return f"#{slug(unquote(anchor))}"
        file = os.path.normpath(self.notebooks / unquote(path))
        name = self.pages.get(Path(os.path.relpath(file, self.notebooks)).as_posix())
        if name is not None:
            return f"{name}#{slug(unquote(anchor))}" if anchor else name
        if not os.path.exists(file):
            raise LessonError(f"{self.notebooks.name}: a link leads to {path}, which is not there")
        if not self.out.is_relative_to(self.notebooks.parent):
            return None
        return quote(Path(os.path.relpath(file, self.out)).as_posix())

    def ways(self, name: str) -> list[Neighbour]:
        """From a page to those before and behind it, the index and the map."""
        order = [INDEX, *self.titles]
        ways = [Neighbour(INDEX, "All lessons", "up"), Neighbour(MAP, "Map of the paper")]
        if name in order:
            place = order.index(name)
            for other in order[max(1, place - 1) : place]:
                ways.insert(0, Neighbour(other, f"\N{LEFTWARDS ARROW} {self.titles[other]}", "prev"))
            for other in order[place + 1 : place + 2]:
                ways.append(Neighbour(other, f"{self.titles[other]} \N{RIGHTWARDS ARROW}", "next"))
        return [way for way in ways if way.page != name]


# -- pages --------------------------------------------------------------------------------
def text_page(path: Path, name: str, site: Site) -> str:
    """The page of a Markdown file."""
    markdown = Markdown(site.link)
    body = markdown(path.read_text(encoding="utf-8"))
    title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    return page(f"{title} | minitorch_alex", name.removesuffix(".html"), body, markdown.headings, site.ways(name))


def lesson_page(book: Any, path: Path, site: Site) -> str:
    """The page of a lesson, with the outputs that its notebook has."""
    markdown = Markdown(site.link)
    parts = [markdown(book.cells[0].source), NOTE.format(escape(path.name))]
    for cell in book.cells[1:]:
        if cell.cell_type == "markdown":
            parts.append(markdown(cell.source))
        elif cell.cell_type == "code":
            parts.append(code_cell(cell, markdown.headings))
    title = f"{title_of(book)} | minitorch_alex"
    return page(title, "lesson", "".join(parts), markdown.headings, site.ways(f"{path.stem}.html"))


def code_cell(cell: Any, headings: list[Heading]) -> str:
    """A cell and what it printed. A solution is folded away below what the learner is given."""
    source, parts = cell.source, []
    if SOLUTION.search(source + "\n"):
        parts.append(highlighted(SOLUTION.sub(STUB, source + "\n").rstrip("\n")))
        parts.append('<details class="solution"><summary>Show a solution</summary>\n')
        parts.append(highlighted(SOLUTION_MARK.sub("", source)) + "</details>\n")
    else:
        parts.append(highlighted(source))
    is_check = CHECK.search(source) is not None
    kind = "right" if is_check else "printed"
    outputs = [output_of(one, headings, kind) for one in joined(cell.get("outputs", []))]
    if is_check and outputs:
        parts.append('<p class="note">With the solution above:</p>\n')
    return f'<div class="cell">\n{"".join([*parts, *outputs])}</div>\n'


def joined(outputs: Iterable[Any]) -> list[Any]:
    """The outputs, of which text that was printed without anything in between is one."""
    made: list[Any] = []
    for one in outputs:
        before = made[-1] if made else None
        if before and one.output_type == before.output_type == "stream" and one.name == before.name:
            before.text += one.text
        else:
            made.append(one)
    return made


def output_of(output: Any, headings: list[Heading], kind: str) -> str:
    """One output of a cell: what it printed, a picture, a table."""
    if output.output_type == "stream":
        return preformatted(ESCAPES.sub("", output.text.rstrip("\n")), "stderr" if output.name == "stderr" else kind)
    if output.output_type == "error":
        return preformatted(ESCAPES.sub("", "\n".join(output.traceback)), "error")
    data = output.data
    if "text/html" in data:
        return f'<div class="output rich">\n{data["text/html"]}\n</div>\n'
    if "image/png" in data:
        size = output.metadata.get("image/png", {})
        return f'<div class="output">\n{picture(data["image/png"], alternative(data, headings), size)}</div>\n'
    return preformatted(data.get("text/plain", ""), kind)


def picture(encoded: str, says: str, size: dict[str, int]) -> str:
    """A PNG file within the page, at the size it asks for or else its own."""
    data = base64.b64decode(encoded)
    own = {"width": int.from_bytes(data[16:20], "big"), "height": int.from_bytes(data[20:24], "big")}
    width, height = (size.get(name, own[name]) for name in ("width", "height"))
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{escape(says)}" width="{width}" height="{height}" src="{source}">\n'


def alternative(data: Any, headings: list[Heading]) -> str:
    """What a picture shows, in words: as `described` has it, or else where it stands."""
    says = data.get("text/plain", "<")
    if not says.startswith("<"):
        return says
    return f"Picture in the section {re.sub('<.*?>', '', headings[-1].inside) if headings else 'above'}"


# -- running ------------------------------------------------------------------------------
def executed(paths: Sequence[Path], folder: Path) -> Iterable[Any]:
    """The notebooks, each run from the top in a kernel of its own, in order. Raises FailedError."""
    books = [read(path) for path in paths]
    total = sum(cell.cell_type == "code" for book in books for cell in book.cells)
    with progress_bar(total=total, unit=" cells") as bar:
        for path, book in zip(paths, books, strict=True):
            bar.set_description(path.stem)
            yield run(book, path.name, folder, bar.update)


def run(book: Any, name: str, folder: Path, tell: Callable[[], Any]) -> Any:
    """Execute a notebook in `folder` with this Python, whatever kernels are installed. `tell` hears of each cell."""
    import nbclient
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    book.cells.insert(0, nbformat.v4.new_code_cell(PRELUDE))
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = nbclient.NotebookClient(book, km=manager)
    number = 0  # of the code cell, as `exercises check` counts them
    with tempfile.TemporaryDirectory() as settings:  # none of the user's own
        environment = {**os.environ, "IPYTHONDIR": settings}
        environment.pop("MPLBACKEND", None)
        try:
            with client.setup_kernel(
                env=environment, cwd=str(folder), cleanup_kc=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,  # the kernel's own, not that of the cells
            ):  # fmt: skip
                client.execute_cell(book.cells[0], 0)
                client.timeout = SECONDS
                for place, cell in list(enumerate(book.cells))[1:]:
                    if cell.cell_type == "code":
                        number += 1
                        client.execute_cell(cell, place)
                        tell()
        except nbclient.exceptions.CellTimeoutError:
            raise FailedError(f"{name}, code cell {number}: it took longer than {SECONDS} seconds") from None
        except nbclient.exceptions.CellExecutionError as error:
            raise FailedError(f"{name}, code cell {number}: {error.ename}: {said(error)}") from None
        except nbclient.exceptions.DeadKernelError:
            raise FailedError(f"{name}, code cell {number}: the kernel died") from None
        except RuntimeError as error:  # of a kernel that never began
            raise FailedError(f"{name}, code cell {number}: {error}") from None
    del book.cells[0]
    return book


def said(error: Any) -> str:
    """What a cell's exception says in its first line, or where it says nothing, the statement that failed."""
    if error.evalue:
        return ESCAPES.sub("", error.evalue).partition("\n")[0]
    marked = re.findall(r"^-+> \d+ +(.*)", ESCAPES.sub("", error.traceback), re.MULTILINE)
    return marked[-1] if marked else "no message"


# -- what pictures show ---------------------------------------------------------------------
def describe_figures() -> None:
    """In a kernel: let every figure come with words that say what it shows, in the place of <Figure size ...>."""
    from matplotlib.figure import Figure

    def write(figure: Figure, printer: Any, cycle: bool) -> None:  # what IPython asks for
        printer.text(described(figure))

    Figure._repr_pretty_ = write  # type: ignore[attr-defined]


def described(figure: Figure) -> str:
    """What it shows, in words taken from its titles, axes and legends."""
    panels = [text for axes in figure.axes if (text := _panel(axes))]
    silent = sum(bool(axes.images) and not _panel(axes) for axes in figure.axes)
    words = [figure.get_suptitle(), *panels]
    words += [f"{silent} image{'s' if silent > 1 else ''}" if silent else ""]
    words += [text.get_text() for text in figure.texts]
    said = ". ".join(" ".join(word.replace("$", "").split()).rstrip(".") for word in dict.fromkeys(words) if word)
    return f"Figure: {said}" if said else "Figure without words"


def _panel(axes: Axes) -> str:
    """Its title, what is drawn against what, and the names in the legend; or the texts written into it."""
    title = next(filter(None, (axes.get_title(loc) for loc in ("center", "left", "right"))), "")
    across, up = axes.get_xlabel(), axes.get_ylabel()
    drawn = f"{up} against {across}" if across and up else across or up
    legend = axes.get_legend()
    names = ", ".join(text.get_text() for text in legend.get_texts()) if legend else ""
    text = ": ".join(filter(None, (title, drawn))) + (f" ({names})" if names else "")
    return text or ", ".join(one.get_text() for one in axes.texts[:20])
