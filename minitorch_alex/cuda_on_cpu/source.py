"""The text of a .cu file: what it includes, which kernels it has, and what g++ needs changed in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .error import CudaOnCpuError

TEACHING = Path(__file__).parent / "teaching"  # files of this package's own, for its command

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"[^\n]*$', re.M)
_KERNEL = re.compile(
    r"(?:template\s*<(?P<template>[^{};]*?)>\s*)?"
    r'(?:extern\s+"C"\s+)?(?:static\s+)?__global__\s+(?:void\s+)?'
    r"(?:__launch_bounds__\s*\((?P<bounds>[^(){};]*)\)\s*)?(?:void\s+)?(?P<name>\w+)\s*\("
)
_INSTANCES = re.compile(r"^// *instances: *(.+)$", re.M)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w:<> ]+?)\s*\b(\w+)\s*\[\s*\]\s*;")
_DECLARED = r"\w+\s*(?:\[[^\[\];]*\]\s*)*"
_STATIC = re.compile(rf"(?<!extern )__shared__\s+[\w:<> ]+?\s({_DECLARED}(?:,\s*{_DECLARED})*);")


def kernel_folder() -> Path:
    """Where the CUDA sources are: in a checkout its own kernels/, so that edits count, else the installed ones."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "kernels"
    return checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "kernels"


@dataclass(frozen=True)
class Declaration:
    """A kernel as its file declares it."""

    name: str
    template: tuple[str, ...]  # such as ("typename T", "int SIZE"); empty: it is no template
    parameters: tuple[str, ...]  # their names
    most_threads: str  # in a block, as __launch_bounds__ says; "": it does not
    line: int
    instances: tuple[str, ...]  # such as ("lrn<float, 5>", "lrn<double, 5>")


@dataclass(frozen=True)
class Source:
    """A .cu file, with what it includes in place of the includes."""

    name: str  # such as "lrn.cu"
    text: str
    title: str = ""  # the first sentence of its first comment
    kernels: dict[str, Declaration] = field(default_factory=dict)

    def declaration(self, expression: str) -> Declaration:
        """The kernel that an expression such as "lrn<float, 5>" is about."""
        name = expression.split("<")[0].strip()
        if name not in self.kernels:
            raise CudaOnCpuError(f"{self.name} has no kernel {name!r}: it has {', '.join(self.kernels) or 'none'}")
        return self.kernels[name]

    def for_cpu(self, expressions: tuple[str, ...]) -> str:
        """The text for g++, with the table of its kernels at the end. Every line keeps its number."""
        text = _DYNAMIC.sub(r'\1* \2 = cuda_on_cpu::dynamic_shared<\1>("\2");', self.text)
        text = _STATIC.sub(_declare_shared, text)
        entries = ", ".join(f'cuda_on_cpu::entry<{expression}>("{expression}")' for expression in expressions)
        return (
            f'#include "cuda_on_cpu.h"\n{text}\n#line 1 "the list of {self.name}\'s kernels"\n'
            f"const cuda_on_cpu::Entry cuda_on_cpu::kernels[] = {{{entries}}};\n"
            f"const int cuda_on_cpu::kernel_count = {len(expressions)};\n"
        )


def _declare_shared(match: re.Match[str]) -> str:
    """Behind a __shared__ array's declaration, tell its name."""
    names = [re.match(r"\w+", part.strip())[0] for part in match[1].split(",")]  # type: ignore[index]
    return match[0] + "".join(f' cuda_on_cpu::declare_shared("{name}", {name});' for name in names)


def read(file_or_text: str | Path) -> Source:
    """Read a .cu file, named by its path or by its name in the folder of kernels; or take CUDA text as it is."""
    if isinstance(file_or_text, str) and ("\n" in file_or_text or "__global__" in file_or_text):
        return parse(file_or_text, "kernel.cu", kernel_folder())
    path = find(file_or_text)
    try:
        return parse(path.read_text(encoding="utf-8"), path.name, path.parent)
    except UnicodeDecodeError:
        raise CudaOnCpuError(f"{path} is no text in UTF-8") from None


def find(file: str | Path) -> Path:
    """The path of a .cu file; ".cu" may be left out. A name without a folder is first looked for among the kernels."""
    named = Path(file) if str(file).endswith((".cu", ".cuh")) else Path(f"{file}.cu")
    is_path = isinstance(file, Path) or "/" in file
    for path in (named,) if is_path else (kernel_folder() / named, TEACHING / named, named):
        if path.is_file():
            return path
    raise CudaOnCpuError(f"there is no {named}" + ("" if is_path else f", neither in {kernel_folder()} nor here"))


def parse(text: str, name: str, folder: Path) -> Source:
    """Source of a text whose includes lie in `folder`."""
    whole = f'#line 1 "{name}"\n' + inline_includes(text, name, folder, {name})
    return Source(name, whole, _title(text), _kernels(text))


def inline_includes(text: str, name: str, folder: Path, seen: set[str]) -> str:
    """The text with each included file of the folder in place of its `#include "..."`, once.

    So whatever is made from the text, and whatever key it is stored under, depends on the included files as well.
    """

    def included(match: re.Match[str]) -> str:
        path = folder / match[1]
        if not path.is_file():
            line = text.count("\n", 0, match.start()) + 1
            raise CudaOnCpuError(f'{name}:{line} includes "{match[1]}", which is not in {folder}')
        after = text.count("\n", 0, match.end()) + 2
        if match[1] in seen:
            return ""
        seen.add(match[1])
        inner = inline_includes(path.read_text(encoding="utf-8"), match[1], path.parent, seen)
        inner = re.sub(r"^[ \t]*#[ \t]*pragma[ \t]+once[^\n]*", "", inner, flags=re.M)
        return f'#line 1 "{match[1]}"\n{inner}\n#line {after} "{name}"'

    return _INCLUDE.sub(included, text)


def _title(text: str) -> str:
    paragraph = re.match(r"(?:\s*//[ \t]*\S[^\n]*\n?)*", text)
    sentence = re.sub(r"\s*//\s*", " ", paragraph[0] if paragraph else "").strip()
    return re.split(r"(?<=\.) (?=[A-Z])", sentence)[0]


def _kernels(text: str) -> dict[str, Declaration]:
    """The kernels that a text declares, by name.

    A `template <typename T>` has two instances, float and double. One of another kind has those that a comment names:
    `// instances: lrn<float, 5>; lrn<double, 5>`.
    """
    named = [one.strip() for line in _INSTANCES.findall(text) for one in line.split(";") if one.strip()]
    plain = _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found = {}
    for match in _KERNEL.finditer(plain):
        template = tuple(part.strip() for part in (match["template"] or "").split(",") if part.strip())
        line = plain.count("\n", 0, match.start("name")) + 1
        bounds = (match["bounds"] or "").split(",")[0].strip()
        name = match["name"]
        instances = [one for one in named if one.split("<")[0].strip() == name]
        if not instances and not template:
            instances = [name]
        elif not instances and len(template) == 1 and template[0].split()[0] in ("typename", "class"):
            instances = [f"{name}<float>", f"{name}<double>"]
        parameters = _parameters(plain[match.end() :])
        found[name] = Declaration(name, template, parameters, bounds, line, tuple(instances))
    return found


def _parameters(text: str) -> tuple[str, ...]:
    """The names in a list of parameters, whose opening bracket lies just before the text."""
    depth, part, parts = 0, "", []
    for letter in text:
        if depth == 0 and letter in ",)":
            parts.append(part)
            part = ""
            if letter == ")":
                break
            continue
        depth += (letter in "(<[") - (letter in ")>]")
        part += letter
    names = [re.search(r"(\w+)\W*$", re.sub(r"\[[^\]]*\]", "", part)) for part in parts]
    return tuple(name[1] for name in names if name)
