"""The house: imports only go down, operations name no backend, importing costs and says nothing.

HOUSE lists every module of the package from the bottom up. A module may import only from rows below its own. To add a
module, put its name into the row where it belongs.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "minitorch_alex"
NAME = PACKAGE.name

HOUSE = [
    # floor 0: CUDA on a CPU, random bits
    "cuda_on_cpu.error",
    "cuda_on_cpu.compiler cuda_on_cpu.memory cuda_on_cpu.source",
    "cuda_on_cpu.arguments cuda_on_cpu.examples cuda_on_cpu.library cuda_on_cpu.proven",
    "cuda_on_cpu.watch",
    "cuda_on_cpu.kernel",
    "cuda_on_cpu",
    "philox",
    # floor 1: arrays, and the kernels below them
    "backends.number_types backends.array_module backends.window backends.thread_pool backends.host_memory",
    "backends.numpy_windows backends.numpy_normalization",
    "backends.numpy_backend",
    "backends.numba_compiler backends.scratch backends.phases backends.winograd",
    "backends.numba_kernels backends.winograd_kernels",
    "backends.numba_winograd backends.numba_products",
    "backends.numba_convolution",
    "backends.numba_backend backends.cuda_launcher backends.cupy_transfer",
    "backends.cuda_windows backends.cuda_normalization",
    "backends.cuda_kernels",
    "backends.cuda_on_cpu_backend backends.cupy_backend",
    "backends",
    "array_box",
    "numpy_operand",
    "clock",
    "peak",
    # floor 2: the tape
    "tensor",
    # floor 3: every differentiable operation
    "functional._arguments",
    "functional._labels",
    "functional.arithmetic functional.shape functional.reduction functional.activation functional.linear",
    "functional.convolution functional.pooling functional.normalization functional.dropout functional.loss",
    "functional.methods",
    "functional",
    # floor 4: layers, optimizer, images
    "init",
    "nn",
    "gradcheck optim watch anomaly",
    "lsuv profiler",
    "data.augmentation data.colour data.statistics",
    "data.dataset",
    "data.digits data.cifar10 data.loader data.photographs",
    "data.packed data.device_loader",
    "data.folder",
    "data",
    # the package's face: what `import minitorch_alex` gives
    "",
    # floor 5: networks, and what surrounds a run
    "models.parts",
    "models.small models.alexnet models.torchvision models.keras models.lenet models.ablation",
    "models",
    "picture",
    "memory",
    "summary",
    "image_plots",
    "checkpoint plots graph progress source",
    "config torch_weights tensorboard",
    "run_folder command_line trained reference torch_twin",
    "run",
    "estimate",
    # floor 6: commands
    "train pack evaluate predict compare doctor",
    "figures",
    "exercises.examination",
    "exercises.lesson_1 exercises.lesson_2 exercises.lesson_3 exercises.lesson_4 exercises.lesson_5 "
    "exercises.lesson_6 exercises.lesson_7 exercises.lesson_8 exercises.lesson_9 exercises.lesson_10",
    "exercises",
    "exercises.notebook",
    "exercises.pages exercises.paper_map",
    "exercises.edition",
    "exercises.__main__",
    "cuda_on_cpu.__main__",
]
ROW = {
    f"{NAME}.{module}".rstrip("."): number
    for number, row in enumerate(HOUSE)
    for module in (row.split() or [""])  # "" is the package itself
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in FILES}


def running_code(node: ast.AST):
    """Every node below this one, without what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from running_code(child)


def imports(text: str, name: str, is_package: bool) -> set[str]:
    """The modules of this package that the source text of module `name` imports, anywhere in it."""
    found = set()
    for node in running_code(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:  # `from . import philox` imports a module, `from .tensor import Tensor` a name
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return {module for module in found if module.split(".")[0] == NAME} - {name}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    assert name in ROW, f"{name} has no place in the house yet: put it into a row of HOUSE in {__file__}"
    for other in imports(MODULES[name].read_text(), name, MODULES[name].stem == "__init__"):
        assert other in ROW, f"{name} imports {other}, which has no place in HOUSE"
        assert ROW[other] < ROW[name], f"{name} imports {other}, which does not lie below it"


def test_the_house_has_no_ghosts():
    assert set(ROW) <= set(MODULES), "HOUSE names modules that do not exist"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from .tensor import Tensor", {"tensor"}),
        ("from . import philox, backends", {"philox", "backends"}),
        ("from .backends.numpy_backend import Window", {"backends.numpy_backend"}),
        ("import minitorch_alex.nn as nn\nimport numpy", {"nn"}),
        ("from minitorch_alex import optim", {"optim"}),
        ("from . import __version__", {""}),
        ("def f():\n    with x:\n        from .train import main", {"train"}),
        ("if TYPE_CHECKING:\n    from .nn import Module", set()),
        ("try:\n    from .nn import Module\nexcept ImportError: pass", {"nn"}),
    ],
)
def test_imports_are_seen(text, expected):
    assert imports(text, f"{NAME}.init", False) == {f"{NAME}.{module}".rstrip(".") for module in expected}
    assert imports(text.replace("from .", "from .."), f"{NAME}.data.loader", False) == {
        f"{NAME}.{module}".rstrip(".") for module in expected
    }


@pytest.mark.parametrize("file", sorted((PACKAGE / "functional").glob("*.py")), ids=lambda file: file.stem)
def test_operations_name_no_backend(file):
    forbidden = re.compile(r"cupy|numba|cuda|\.name\s*[=!]=|isinstance\(\s*xp|backends\.(get|use|current)\b", re.I)
    lines = [line for line in file.read_text().splitlines() if forbidden.search(line)]
    assert not lines, "an operation must not know which backend it is on"


def python(code: str, *options: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, cwd=folder)


def test_import_is_silent(tmp_path):
    done = python("import minitorch_alex", "-W", "error", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_importing_every_module_is_silent(tmp_path):
    for_all = sorted(module for module in MODULES if ".cupy_" not in module)  # which need CuPy
    done = python(f"import {', '.join(for_all)}", "-W", "error", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


HEAVY = "numba llvmlite cupy matplotlib torch tensorflow pooch PIL scipy requests tensorboardX"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import minitorch_alex", f"{HEAVY} tqdm safetensors"),
        ("import minitorch_alex; minitorch_alex.tensor([1.0])", HEAVY),
        ("import minitorch_alex.train", HEAVY),
    ],
)
def test_heavy_packages_wait_until_they_are_needed(code, absent, tmp_path):
    code += f"; import sys; print('loaded:', *sorted(set('{absent}'.split()) & set(sys.modules)))"
    assert python(code, folder=tmp_path).stdout.split() == ["loaded:"]


def test_import_starts_no_thread_and_takes_no_signal(tmp_path):
    code = "import signal, threading, minitorch_alex.train\n"
    code += "print(threading.active_count(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert python(code, folder=tmp_path).stdout.split() == ["1", "True"]
