"""The lessons in notebooks/: they run, they are what their sources say, and none uses what comes later."""

import ast
import builtins
import importlib
import inspect
import json
import os
import re
from pathlib import Path

import numpy
import pytest

import minitorch_alex
from minitorch_alex import Tensor, nn, optim
from minitorch_alex.exercises import notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))

# What each lesson introduces of the package: a lesson may use its own names and those of lessons before it. Names of
# Tensor that NumPy's arrays have too (sum, reshape, ...) need no introduction.
INTRODUCED = {
    1: """
        minitorch_alex functional tensor Tensor requires_grad backward grad edges born numpy no_grad op mul
        exercises check hint graph source
    """,
    2: "gradcheck separated abs _agree _slope _suspect",
    3: "data load backends numpy_backend Window taps conv2d convolution _conv2d cat",
    4: """
        max_pool2d local_response_norm dropout _dropout philox set_step next_call manual_seed gradcheck Backend
        max_pool2d_gradient local_response_norm_gradient
    """,
    5: """
        softmax cross_entropy activation log_softmax_of exp log nn Module Parameter named_parameters parameters linear
        Linear Sequential Flatten Conv2d MaxPool2d AvgPool2d ReLU Sigmoid Tanh relu sigmoid tanh Preprocessing zero_grad
        optim SGD step init initialise normal_ kaiming_normal_ fan_in of progress progress_bar plots filters sgd_paper
    """,
    6: """
        get use available why_not ArrayModule array_module __getattr__ relu_gradient to backend cuda_on_cpu ORDERS
        CudaOnCpuError kernel_folder CudaKernels cuda_kernels
    """,
    7: """
        models build MODELS summary LocalResponseNorm Dropout state_dict load_state_dict architecture pad
        multiply_accumulates path memory peak profiler profile aligned train alexnet_2012
    """,
    8: """
        CentreCrop ColourNoise Config Dropout Loader RandomCrop ReduceLROnPlateau SHIPPED ablate ablation
        augmentation batch centre_crop cifar10 config crops evaluate find load_trained photographs read_file
        read_photograph reference reference_for ten_crops trained
    """,
    9: """
        CHECKPOINT SHIPPED Trained activations augmentation build checkpoint cifar10 constant_ filter_pictures
        find load_state_dict load_trained log_softmax models neighbours photographs predictions
        read_photograph save_checkpoint state_dict trained watch watching
    """,
    10: """
        build cuda_on_cpu current kernel_folder least_milliseconds matrices measure_peak models multiply_accumulates
        path Peak peak POINTS profile profiler thread_pool usable_cores why_not winograd
    """,
}


def lesson_number(path):
    return int(path.name[:2])


# -- the files --------------------------------------------------------------------
def test_all_ten_are_there():
    assert [lesson_number(path) for path in SOURCES] == list(range(1, 11))
    generated = {path.name for path in NOTEBOOKS.glob("**/*.ipynb") if ".ipynb_checkpoints" not in path.parts}
    assert generated == {f"{path.stem}.ipynb" for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_notebooks_are_what_the_source_says(path):
    for file, text in notebook.versions(path).items():
        assert file.read_text() == text, f"run: python -m minitorch_alex.exercises write --force {path}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_notebooks_hold_no_output_and_the_learners_no_solution(path):
    for file in (path.with_suffix(".ipynb"), NOTEBOOKS / "solved" / f"{path.stem}.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
        stubs = sum("raise NotImplementedError()" in "".join(cell["source"]) for cell in code)
        checks = sum("".join(cell["source"]).startswith("check(") for cell in code)
        assert stubs == (0 if file.parent.name == "solved" else checks)
        assert checks >= 3
    assert "SOLUTION" not in path.with_suffix(".ipynb").read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nbgrader_could_take_it(path):
    """As its schema 3 wants it: checks are graded, answers are solutions, names have no dots."""
    cells = json.loads((NOTEBOOKS / "solved" / f"{path.stem}.ipynb").read_text())["cells"]
    marks = [(cell["metadata"]["nbgrader"], "".join(cell["source"])) for cell in cells if cell["metadata"]]
    assert all(re.fullmatch(r"[\w-]+", mark["grade_id"]) for mark, _ in marks)
    assert len({mark["grade_id"] for mark, _ in marks}) == len(marks)
    assert [mark["grade"] for mark, _ in marks] == [text.startswith("check(") for _, text in marks]
    assert [mark["solution"] for mark, _ in marks] == ["### BEGIN SOLUTION" in text for _, text in marks]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_form_of_a_lesson(path):
    text, number = path.read_text(), lesson_number(path)
    assert text.startswith(f"# %% [markdown]\n# # {number}. ")
    for part in ("**Afterwards you can**", "The lesson takes about", "\n# ## Summary\n", "\n# ## Exercises\n"):
        assert text.count(part) == 1, part
    first = SOURCES[0].read_text().split("# %%\n")[1]
    assert text.split("# %%\n")[1] == first, "the set-up cell is the same in every lesson"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_index_lists_it(path):
    index = (NOTEBOOKS / "README.md").read_text()
    title = re.match(r"# %% \[markdown\]\n# # \d+\. (.*)\n", path.read_text())[1]
    assert f"[{title}]({path.stem}.ipynb)" in index
    minutes = re.search(r"The lesson takes about (\d+) minutes", path.read_text())[1]
    row = next(line for line in index.splitlines() if f"({path.stem}.ipynb)" in line)
    assert f" {minutes} min" in row


# -- running ------------------------------------------------------------------------
SMALLER = {  # what a test changes in a lesson so that it takes less time
    5: {"EPOCHS = 8": "EPOCHS = 4"},
    7: {"IMAGES = 8": "IMAGES = 2"},
    8: {"EPOCHS = 12 if PHOTOGRAPHS else 16": "EPOCHS = 8", "SEEDS = 3": "SEEDS = 2"},
    9: {"EPOCHS = 8": "EPOCHS = 5", "DRAWS = 5": "DRAWS = 3"},
    10: {"IMAGES = 16": "IMAGES = 4", "BATCH = 64": "BATCH = 16"},
}


def execute(path, folder, environment):
    """Run a notebook from the top in a fresh kernel; the cells with their outputs."""
    import nbclient
    import nbformat

    book = nbformat.read(path, as_version=4)
    for old, new in SMALLER.get(lesson_number(path), {}).items():
        (cell,) = [cell for cell in book.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute(env=environment)
    return book.cells


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No settings but our own, and matplotlib as Jupyter sets it."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))  # no kernel but this environment's own
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return dict(os.environ)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_lesson_runs_from_the_top(path, environment):
    cells = execute(NOTEBOOKS / "solved" / f"{path.stem}.ipynb", NOTEBOOKS, environment)
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not said, "a lesson prints no warnings"


@pytest.mark.filterwarnings("default")
def test_an_unsolved_lesson_runs_to_its_end(environment):
    """Run All goes on behind an exercise that is not solved, and shows one line for it."""
    cells = execute(SOURCES[0].with_suffix(".ipynb"), NOTEBOOKS, environment)
    checks = [cell for cell in cells if cell.cell_type == "code" and cell.source.startswith("check(")]
    assert [output.evalue for cell in checks for output in cell.outputs] == [
        f"{number} {name}: not solved yet."
        for number, name in re.findall(r'^check\("(.*)", (.*)\)$', SOURCES[0].read_text(), re.MULTILINE)
    ]
    assert [output.traceback for cell in checks for output in cell.outputs] == [
        [output.evalue] for cell in checks for output in cell.outputs
    ]


# -- nothing before its time ----------------------------------------------------------
def vocabulary():
    """Every public name of the package that a lesson could use, without those that everybody knows."""
    modules = "functional nn optim init gradcheck plots graph source summary models data checkpoint philox backends"
    known = set(modules.split()) | {
        name for name, value in vars(minitorch_alex).items() if name[0] != "_" and not inspect.ismodule(value)
    }
    for module in modules.split():
        known |= {name for name in dir(importlib.import_module(f"minitorch_alex.{module}")) if name[0] != "_"}
    for kind in (Tensor, nn.Module, optim.SGD):
        known |= {name for name in dir(kind) if name[0] != "_"}
    return known - {"Any", "Callable", "Iterator", "Iterable", "Path", "annotations", "math"}


VOCABULARY = vocabulary()
EVERYBODYS = (
    set(dir(numpy.ndarray))
    | set(dir(builtins))
    | set(dir(str))
    | set(dir(dict))
    | set(dir(set))
    | set(dir(numpy.random))
)


def names_used(text):
    """The package's names in a lesson's code: what it imports, modules' attributes, and Tensor's own attributes."""
    tree = ast.parse(text)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "minitorch_alex":
                    ours.add(alias.asname or alias.name)
                    used.add(alias.name.split(".")[-1])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minitorch_alex":
            used |= {alias.name for alias in node.names} | {node.module.split(".")[-1]}
            ours |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_module = isinstance(node.value, ast.Name) and node.value.id in ours
            of_other = isinstance(node.value, ast.Name) and node.value.id in ("np", "plt", "itertools", "math")
            if of_module or (node.attr in VOCABULARY - EVERYBODYS - own and not of_other):
                used.add(node.attr)
    return used


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_lesson_uses_a_later_idea(path):
    number = lesson_number(path)
    known = {name for lesson in range(1, number + 1) for name in INTRODUCED[lesson].split()}
    too_early = names_used(path.read_text()) - known
    assert not too_early, f"lesson {number} uses what no lesson has introduced yet"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_a_lesson_introduces_it_uses(path):
    assert set(INTRODUCED[lesson_number(path)].split()) <= names_used(path.read_text())


def test_later_ideas_are_noticed():
    text = "import minitorch_alex.functional as F\nfrom minitorch_alex import nn\n"
    text += "y = F.relu(x)\nm = nn.Linear(3, 4)\ny.backward()"
    assert names_used(text) == {"functional", "minitorch_alex", "nn", "relu", "Linear", "backward"}
