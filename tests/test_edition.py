"""The lessons as web pages: links lead somewhere, nothing is fetched, solutions are folded, formulas are shown."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minitorch_alex.exercises import edition, notebook, pages
from minitorch_alex.exercises.__main__ import main
from minitorch_alex.exercises.notebook import LessonError

pytest.importorskip("latex2mathml", reason='the pages need: pip install -e ".[notebooks]"')

ROOT = Path(__file__).parents[1]
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}
SHOWN_AS_IT_IS = {"pre", "code", "style", "math"}


class Page(HTMLParser):
    """What a browser would make of a page, as far as we ask."""

    def __init__(self, path):
        super().__init__()
        self.path, self.open, self.tags, self.ids, self.text, self.problems = path, [], [], [], [], []
        self.solutions, self.outside = [], []  # code in <details class="solution">, and elsewhere
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "details":
            self.solutions.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if "details" in self.open:
            self.solutions[-1] += data
        else:
            self.outside.append(data)
        if not SHOWN_AS_IT_IS & set(self.open):
            self.text.append(data)

    def attributes(self, tag, name):
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


def check_links(page, others):
    """Every link leads to a page or a file that is there, and to an anchor in it. `others` are pages by name."""
    for href in page.attributes("a", "href"):
        if re.match(r"https?://", href):
            continue
        file, _, anchor = href.partition("#")
        target = page.path.parent / edition.unquote(file) if file else page.path
        assert target.exists(), f"{page.path.name}: {href}"
        if anchor:
            assert anchor in others[target.name].ids, f"{page.path.name}: {href}"


def check_nothing_is_fetched(page):
    policy = [a for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert [p["content"] for p in policy] == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not {"script", "iframe", "object", "embed", "video", "audio", "source", "form", "base"} & {
        tag for tag, _ in page.tags
    }
    assert page.attributes("link", "href") == ["data:,"]
    for tag, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:"), (tag, attributes["src"][:80])
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "background", "action")]
        assert "url(" not in attributes.get("style", "")
    styles = re.findall(r"<style>(.*?)</style>", page.path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|https?:", styles[0])


def check_page(page):
    assert not page.problems
    assert len(page.ids) == len(set(page.ids))
    assert ("html", {"lang": "en-GB"}) in page.tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    check_nothing_is_fetched(page)
    text = "".join(page.text)
    assert "$" not in text, text[text.index("$") - 80 :][:160]
    assert not re.search(r"\\[a-z]{2,}", text), "LaTeX"
    assert not re.search(r"\]\([^ ]+\)|^#+ |\*\*", text, re.MULTILINE), "Markdown"
    assert all(alt.strip() and not alt.startswith("<") for alt in page.attributes("img", "alt"))
    assert len(page.attributes("img", "alt")) == sum(tag == "img" for tag, _ in page.tags)
    assert all(attributes.get("alttext") for tag, attributes in page.tags if tag == "math")


def check_solutions(page, source):
    """Each is folded, and what the learner is given stands before it."""
    text = source.read_text(encoding="utf-8")
    cells = [cell for cell in text.split("# %%") if "### BEGIN SOLUTION" in cell]
    assert len(page.solutions) == len(cells)
    outside = "".join(page.outside)
    for cell, folded in zip(cells, page.solutions, strict=True):
        for solution in re.findall(r"### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION", cell, re.DOTALL | re.MULTILINE):
            for line in solution.strip().splitlines():
                assert line.strip() in folded
            assert solution.strip() not in outside
    given = re.findall(r"# YOUR CODE HERE\n *raise NotImplementedError\(\)", outside)
    assert len(given) == sum(cell.count("### BEGIN SOLUTION") for cell in cells)
    assert "SOLUTION" not in outside + "".join(page.solutions)


# -- the real ones, not executed --------------------------------------------------------------
def clone_at(folder):
    """The parts of a clone that links lead to."""
    (folder / "notebooks").mkdir(parents=True)
    for path in (ROOT / "notebooks").iterdir():
        if path.suffix in (".md", ".toml"):
            shutil.copy(path, folder / "notebooks")
        elif path.suffix == ".py":
            write_lesson(folder / "notebooks", path.stem, path.read_text())
    for name in ("minitorch_alex", "kernels", "benchmarks", "tests", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return clone_at(tmp_path_factory.mktemp("clones") / "clone")


@pytest.fixture(scope="module")
def real(clone):
    """All pages by name, without the outputs of cells."""
    paths = edition.build(clone / "notebooks", clone / "lessons-html", execute=False)
    return {path.name: Page(path) for path in paths}


LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"))


def test_there_is_a_page_for_each(real):
    assert list(real) == ["index.html", "map.html", *(f"{name}.html" for name in LESSONS)]


@pytest.mark.parametrize("name", ["index", "map", *LESSONS])
def test_every_page_is_sound(name, real):
    page = real[f"{name}.html"]
    check_page(page)
    check_links(page, real)
    if name in LESSONS:
        check_solutions(page, ROOT / "notebooks" / f"{name}.py")


def test_pages_lead_to_one_another(real):
    """Previous and next make a chain from the index through all lessons, and each page leads back."""
    order = ["index.html", *(f"{name}.html" for name in LESSONS)]
    for place, name in enumerate(order):
        ways = {a["rel"]: a["href"] for tag, a in real[name].tags if tag == "a" and "rel" in a}
        if place:
            assert ways["up"] == "index.html"
        assert ways.get("next") == (order[place + 1] if place + 1 < len(order) else None)
        assert ways.get("prev") == (order[place - 1] if place > 1 else None)
    index = real["index.html"].attributes("a", "href")
    assert {f"{name}.html" for name in LESSONS} | {"map.html"} <= set(index)


def test_the_map_leads_to_the_code(real):
    found = real["map.html"].attributes("a", "href")
    assert "../minitorch_alex/models/alexnet.py" in found
    assert "../tests/test_models.py" in found


@pytest.mark.slow
def test_the_whole_edition(clone):
    """As `python -m minitorch_alex.exercises html` makes it, which takes some minutes."""
    built = {path.name: Page(path) for path in edition.build(clone / "notebooks", clone / "lessons-html")}
    for name, page in built.items():
        check_page(page)
        check_links(page, built)
        if page.path.stem in LESSONS:
            source = (ROOT / "notebooks" / f"{page.path.stem}.py").read_text()
            numbers = re.findall(r'^check\("([\d.]+)"', source, re.MULTILINE)
            outputs = "".join(page.outside)
            for number in numbers:
                assert re.search(rf"{re.escape(number)} \w+: right \(\d+ checks\)\.", outputs), f"{name}: {number}"
            assert page.attributes("img", "alt"), name
            assert all(alt.startswith("Figure: ") for alt in page.attributes("img", "alt")), name


# -- a tiny one, executed ---------------------------------------------------------------------
TINY = r"""# %% [markdown]
# # 1. A tiny lesson
#
# Some `code` and a [file](../README.md), a [lesson](02_other.ipynb), [its text](01_tiny.py#part-two), the
# [index](README.md), [the map](MAP.md) and [a page](https://example.org/a).
#
# $$\tfrac12 \, \left( w_1^2 + \frac{a}{b} \right) = \sum_{j=1}^{n} x_j, \qquad x \leftarrow -\epsilon$$

# %%
import matplotlib.pyplot as plt

from minitorch_alex.exercises import check
from minitorch_alex.source import source

figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
left.plot([1, 2], label="first <one>")
left.set(title="Left", xlabel="$w_1$", ylabel="loss")
left.legend()
right.imshow([[1, 2]])
plt.show()

# %% [markdown]
# ## Part one: $x_1 < x_2$ and *more*
#
# | a | $b$ |
# | --- | ---: |
# | 1 | 2 |
#
# ```sh
# echo $HOME
# ```
#
# ## Part two

# %%
print("1 < 2 & $3", flush=True)
print("four")
import sys; print("careful", file=sys.stderr)
source(check)


# %%
def slope_by_hand(a):
    ### BEGIN SOLUTION
    secret = 18 * a
    return secret + 1
    ### END SOLUTION


# %%
check("1.1", slope_by_hand)
"""
OTHER = "# %% [markdown]\n# # 2. Other\n#\n# ## Part two\n#\n# ## Part two\n\n# %%\n1 + 1\n"


def write_lesson(folder, name, text):
    (folder / "solved").mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    for path, version in notebook.versions(folder / f"{name}.py").items():
        path.write_text(version)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A clone with two lessons."""
    folder = tmp_path / "notebooks"
    write_lesson(folder, "01_tiny", TINY)
    write_lesson(folder, "02_other", OTHER)
    (folder / "README.md").write_text("# All\n\n[one](01_tiny.ipynb), [two](02_other.ipynb)\n")
    (folder / "MAP.md").write_text("# Map\n\n[line](../README.md#L3)\n")
    (tmp_path / "README.md").write_text("# Clone\n")
    monkeypatch.chdir(tmp_path)
    kernel = tmp_path / "jupyter" / "kernels" / "python3"  # of another Python, which is not to be taken
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["no such program"], "display_name": "", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return tmp_path


def pages_in(folder):
    return {path.name: Page(path) for path in sorted(folder.iterdir())}


@pytest.mark.filterwarnings("default")
def test_a_lesson_is_executed(tiny, capsys):
    assert main(["html"]) == 0
    said = capsys.readouterr()
    assert said.out == "wrote 4 pages: open lessons-html/index.html in a browser\n"
    assert said.err == ""
    built = pages_in(tiny / "lessons-html")
    assert list(built) == ["01_tiny.html", "02_other.html", "index.html", "map.html"]
    for page in built.values():
        check_page(page)
        check_links(page, built)
    page = built["01_tiny.html"]
    check_solutions(page, tiny / "notebooks" / "01_tiny.py")
    text = page.path.read_text()
    assert "<title>1. A tiny lesson | minitorch_alex</title>" in text
    assert page.attributes("img", "alt") == ["Figure: Left: loss against w_1 (first <one>). 1 image"]
    assert 300 < int(page.attributes("img", "width")[0]) < 500
    assert '<pre class="output printed">1 &lt; 2 &amp; $3\nfour</pre>' in text
    assert '<pre class="output stderr">careful</pre>' in text
    assert "def check" in "".join(page.outside), "the engine's own code"
    assert re.search(r'<pre class="output right">1\.1 slope_by_hand: right \(\d+ checks\)\.</pre>', text)
    assert text.index("NotImplementedError") < text.index("<details") < text.index("secret") < text.index("</details>")
    assert page.attributes("a", "href").count("02_other.html") == 3, "in the text, and twice as the next one"
    assert "01_tiny.html#part-two" in page.attributes("a", "href")
    assert "../README.md" in page.attributes("a", "href")
    assert page.ids == ["1-a-tiny-lesson", "part-one-x_1-x_2-and-more", "part-two"]
    assert built["02_other.html"].ids == ["2-other", "part-two", "part-two-2"]
    assert '<pre class="output printed">2</pre>' in built["02_other.html"].path.read_text()
    assert 'data-label="a"' in text
    assert not list(tiny.glob("**/.ipynb_checkpoints"))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('one\\ntwo')", "ValueError: one"),
        ("x = 3\nassert x == 2", "AssertionError: assert x == 2"),
        ("import os\n\nos._exit(3)", "the kernel died"),
    ],
)
def test_a_lesson_that_fails_is_named_with_its_cell(code, words, tiny, capsys):
    write_lesson(tiny / "notebooks", "02_other", f"{OTHER}\n# %%\n{code}\n")
    assert main(["html", "2"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"exercises: 02_other.ipynb, code cell 2: {words}\n"


def test_a_cell_that_never_ends(tiny, capsys, monkeypatch):
    monkeypatch.setattr(edition, "SECONDS", 1)
    write_lesson(tiny / "notebooks", "02_other", "# %% [markdown]\n# # 2. Other\n\n# %%\nwhile True:\n    pass\n")
    assert main(["html", "2"]) == 1
    assert capsys.readouterr().err == "exercises: 02_other.ipynb, code cell 1: it took longer than 1 seconds\n"


# -- the command, without executing -------------------------------------------------------------
@pytest.fixture
def quickly(monkeypatch):
    """Nothing is executed."""
    monkeypatch.setattr(edition, "executed", lambda paths, folder: map(edition.read, paths))


def test_some_lessons(tiny, quickly, capsys):
    """Links to lessons that are not there as pages lead to their notebooks, until they are."""
    assert main(["html", "2", "--out", "mine"]) == 0
    built = pages_in(tiny / "mine")
    assert list(built) == ["02_other.html", "index.html", "map.html"]
    assert "../notebooks/01_tiny.ipynb" in built["index.html"].attributes("a", "href")
    assert "01_tiny.html" not in built["02_other.html"].attributes("a", "href")
    assert main(["html", "1", "--out", "mine"]) == 0
    built = pages_in(tiny / "mine")
    assert "01_tiny.html" in built["index.html"].attributes("a", "href")
    assert "02_other.html" in built["01_tiny.html"].attributes("a", "href")
    for page in built.values():
        check_links(page, built)


def test_outside_of_the_clone_files_are_plain_text(tiny, quickly, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere") / "deep" / "pages"
    assert main(["html", "--out", str(out)]) == 0
    built = pages_in(out)
    for page in built.values():
        check_page(page)
        check_links(page, built)
        assert not [href for href in page.attributes("a", "href") if href.startswith("..")]
    assert "a file, a" in " ".join("".join(built["01_tiny.html"].text).split())


def test_from_the_folder_of_the_lessons(tiny, quickly, capsys, monkeypatch):
    monkeypatch.chdir(tiny / "notebooks")
    assert main(["html"]) == 0
    assert capsys.readouterr().out == "wrote 4 pages: open ../lessons-html/index.html in a browser\n"
    assert (tiny / "lessons-html" / "02_other.html").is_file()


def test_the_same_again(tiny, quickly):
    def contents():
        return {path.name: path.read_text() for path in (tiny / "lessons-html").iterdir()}

    assert main(["html"]) == 0
    before = contents()
    (tiny / "lessons-html" / "notes.txt").write_text("mine")
    assert main(["html"]) == 0
    assert contents() == {**before, "notes.txt": "mine"}


def test_what_is_somebody_elses_stays(tiny, capsys, monkeypatch):
    monkeypatch.setattr(edition, "executed", lambda *_: pytest.fail("executed before it looked"))
    (tiny / "lessons-html").mkdir()
    (tiny / "lessons-html" / "02_other.html").write_text("<p>my own</p>")
    assert main(["html"]) == 2
    assert capsys.readouterr().err == (
        "exercises: lessons-html/02_other.html is there and no page of this edition: choose another folder with --out\n"
    )
    assert [path.name for path in (tiny / "lessons-html").iterdir()] == ["02_other.html"]
    assert (tiny / "lessons-html" / "02_other.html").read_text() == "<p>my own</p>"


def break_a_link(notebooks):
    (notebooks / "README.md").write_text("# All\n\n[gone](03_gone.ipynb)\n")


def break_a_formula(notebooks):
    (notebooks / "README.md").write_text("# All\n\nSee $\\nosuchcommand{x}$.\n")


def break_a_notebook(notebooks):
    (notebooks / "solved" / "02_other.ipynb").write_text("nothing")


@pytest.mark.parametrize(
    ("arguments", "breakage", "words"),
    [
        (["html", "3"], None, "there is no lesson 3 in notebooks/solved"),
        (["html"], break_a_link, "notebooks: a link leads to 03_gone.ipynb, which is not there"),
        (["html"], break_a_formula, r"there is no MathML for the formula \nosuchcommand{x}"),
        (["html"], break_a_notebook, "notebooks/solved/02_other.ipynb: this is no Jupyter notebook"),
        (["html"], lambda notebooks: (notebooks / "MAP.md").unlink(), "notebooks/MAP.md: No such file"),
        (["html", "--out", "README.md"], None, "README.md: "),
        (["html", "one"], None, "argument LESSON: invalid int value: 'one'"),
        (["html"], lambda notebooks: shutil.rmtree(notebooks), "there is no notebooks/solved here"),
        (["map"], lambda notebooks: shutil.rmtree(notebooks), "there is no notebooks/solved here"),
    ],
)
def test_refusals_are_one_line(arguments, breakage, words, tiny, quickly, capsys):
    if breakage:
        breakage(tiny / "notebooks")
    try:
        status = main(arguments)
    except SystemExit as end:  # argparse's own
        status = end.code
    assert status == 2
    err = capsys.readouterr().err
    assert err.startswith(f"exercises: {words}")
    assert err.count("\n") == 1


def test_without_the_libraries_it_says_what_to_install(tiny, quickly, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert main(["html"]) == 2
    assert capsys.readouterr().err.endswith('; pip install "minitorch_alex[notebooks]" has it\n')


def test_interrupted(tiny):
    """Ctrl-C ends it with its kernel, in one line."""
    write_lesson(
        tiny / "notebooks", "02_other",
        "# %% [markdown]\n# # 2. Other\n\n# %%\nimport os, time\n"
        "open('../started', 'w').write(str(os.getpid()))\ntime.sleep(600)\n",
    )  # fmt: skip
    command = [sys.executable, "-m", "minitorch_alex.exercises", "html", "2"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tiny)
    started = tiny / "started"
    try:
        for _ in range(600):
            if started.exists() and started.read_text():
                break
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out, err) == (130, "", "exercises: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


# -- parts ------------------------------------------------------------------------------------
def test_every_formula_has_mathml():
    """Those of the lessons, and what they might use next."""
    found = 0
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"):
        markdown = pages.Markdown(lambda target: target)
        for cell in re.split(r"^# %%", path.read_text(), flags=re.MULTILINE):
            if cell.startswith(" [markdown]"):
                markdown("\n".join(line[2:] for line in cell.splitlines()[1:]))
                found += cell.count("$")
    assert found > 100
    with pytest.raises(LessonError, match="no MathML"):
        pages.formula(r"\notacommand x", False)
    assert pages.formula("a < b", True).count("<mo>") == 1


def test_words_for_a_figure():
    from matplotlib.figure import Figure

    figure = Figure()
    assert edition.described(figure) == "Figure without words"
    upper, lower = figure.subplots(2, 1)
    upper.set(title="Loss.", xlabel="step", ylabel="nats")
    lower.text(0, 0, "a box\n#1")
    figure.suptitle("Everything: $x_1$")
    assert edition.described(figure) == "Figure: Everything: x_1. Loss.: nats against step. a box #1"
