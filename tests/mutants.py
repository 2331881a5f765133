"""One-line bugs for mutation.py: those that mutation.toml names, and others drawn from all that its operators make."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """A file in which one place is changed."""

    file: str
    line: int  # from 1
    before: str  # the line, without its indent
    after: str
    text: str  # of the whole file, changed

    @property
    def name(self) -> str:
        """The same in every run, as long as the file is."""
        return hashlib.sha256(f"{self.file}\n{self.text}".encode()).hexdigest()[:12]


def drawn_from(root: Path, file: str) -> list[Mutant]:
    """Every mutant that the operators make of a file."""
    text = (root / file).read_text(encoding="utf-8")
    changes = python_changes(text) if file.endswith(".py") else cuda_changes(text)
    made = {}
    for start, stop, new in changes:
        mutant = changed(file, text, start, stop, new)
        made[mutant.text] = mutant
    return list(made.values())


def chosen(root: Path, file: str, old: str, new: str) -> Mutant:
    """The mutant in which `old`, which stands in the file once, is `new`."""
    text = (root / file).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{file}: {old!r} stands there {text.count(old)} times and not once")
    start = text.index(old)
    return changed(file, text, start, start + len(old), new)


def changed(file: str, text: str, start: int, stop: int, new: str) -> Mutant:
    """The mutant with `new` in the place of text[start:stop]."""
    after = text[:start] + new + text[stop:]
    line = text.count("\n", 0, start)
    old_lines, new_lines = text.splitlines(), after.splitlines()
    return Mutant(file, line + 1, old_lines[line].strip(), new_lines[line].strip(), after)


# -- Python -----------------------------------------------------------------------------
Change = tuple[int, int, str]  # text[start:stop] becomes this
OPERATORS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"), ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "//"), ast.Pow: ("**", "*"), ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}  # fmt: skip
SWAPPED = {"min": "max", "max": "min", "zeros": "ones", "ones": "zeros", "maximum": "minimum", "floor": "ceil"}


def python_changes(text: str) -> Iterator[Change]:
    """Operators, numbers, True and False, `not`, signs, names that have an opposite; statements left out."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = text.encode()  # the columns of ast count bytes

    def place(line: int, column: int) -> int:
        return len(raw[: starts[line - 1] + column].decode())

    for node in meaningful(ast.parse(text)):
        if isinstance(node, ast.BinOp):
            yield from between(text, place, node.left, node.right, type(node.op))
        elif isinstance(node, ast.BoolOp):
            yield from between(text, place, node.values[0], node.values[1], type(node.op))
        elif isinstance(node, ast.Compare):
            for left, right, op in zip([node.left, *node.comparators], node.comparators, node.ops, strict=False):
                yield from between(text, place, left, right, type(op))
        elif isinstance(node, ast.AugAssign):
            yield from between(text, place, node.target, node.value, type(node.op))
        if isinstance(node, ast.expr | ast.stmt):
            start, stop = place(node.lineno, node.col_offset), place(node.end_lineno or 0, node.end_col_offset or 0)
            yield from ((start, stop, new) for new in instead_of(node, text[start:stop]))


def meaningful(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something: no annotations, no messages of errors, no texts, nothing that only types are for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.arg):
            continue
        yield node
        if isinstance(node, ast.FunctionDef):
            node.returns, node.decorator_list = None, []
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            continue  # -1 in reshape and indices: what is wrong with its sign is tried, and NumPy takes -2 for -1
        if isinstance(node, ast.AnnAssign):
            node.annotation = None  # type: ignore[assignment]
        yield from meaningful(node)


def between(text: str, place, left: ast.expr, right: ast.expr, kind: type) -> Iterator[Change]:
    """The operator that stands between two operands, replaced."""
    if kind not in OPERATORS:
        return
    old, new = OPERATORS[kind]
    start, stop = place(left.end_lineno, left.end_col_offset), place(right.lineno, right.col_offset)
    found = re.search(rf"(?<!\w){re.escape(old)}(?!\w)", text[start:stop])
    if found:
        yield start + found.start(), start + found.end(), new


def instead_of(node: ast.expr | ast.stmt, source: str) -> Iterator[str]:
    """What else an expression or a statement might say."""
    match node:
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() as value):
            yield str(value + 1)
        case ast.Constant(value=float() as value):
            yield str(2 * value if value else 1.0)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=ast.expr() as operand):
            yield f"({ast.unparse(operand)})"
        case ast.Name(id=name) if name in SWAPPED:
            yield SWAPPED[name]
        case ast.Attribute(value=value, attr=name) if name in SWAPPED:
            yield f"{ast.unparse(value)}.{SWAPPED[name]}"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break():
            yield "pass"
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute(), *_]):
            yield "pass"


# -- CUDA -------------------------------------------------------------------------------
TOKENS = [
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "), (r" != ", " == "),
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" / ", " * "), (r" % ", " / "), (r" && ", " || "),
    (r" \|\| ", " && "), (r" \+= ", " = "), (r" -= ", " += "), (r"__syncthreads\(\);", ""), (r"__syncwarp\(\);", ""),
    (r"\bmin\(", "max("), (r"\bmax\(", "min("), (r"(?<=\[)0(?=\])", "1"), (r"(?<== )0(?=;)", "1"), (r"\b1\b", "2"),
]  # fmt: skip


def cuda_changes(text: str) -> Iterator[Change]:
    """The same for the .cu files, by their tokens. Comments, declarations of templates and #lines are left alone."""
    at = 0
    for line in text.splitlines(keepends=True):
        code = re.split(r"//|/\*", line)[0]
        if not re.match(r"\s*(#|template|static_assert|\*)", code):
            for old, new in TOKENS:
                yield from ((at + m.start(), at + m.end(), new) for m in re.finditer(old, code))
        at += len(line)
