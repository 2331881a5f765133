"""What the README says of the code is true. `python tests/test_readme.py` brings its sizes up to date."""

import re
from pathlib import Path

import pytest

from minitorch_alex.anomaly import AnomalyError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ROW = re.compile(r"^\| (\d+) \| `([\w/.]+)` \| ([\d,]+) \|", re.MULTILINE)
TOTAL = re.compile(r"The package has ([\d,]+) lines in all")


def lines_of(file: str) -> int:
    return len((ROOT / "minitorch_alex" / file).read_text().splitlines())


def package_lines() -> int:
    files = [p.relative_to(ROOT / "minitorch_alex") for p in (ROOT / "minitorch_alex").rglob("*.py")]
    return sum(lines_of(str(f)) for f in files)


def brought_up_to_date(text: str) -> str:
    text = ROW.sub(lambda m: f"| {m[1]} | `{m[2]}` | {lines_of(m[2])} |", text)
    return TOTAL.sub(f"The package has {package_lines():,} lines in all", text)


def test_sizes_are_true():
    text = README.read_text()
    assert len(ROW.findall(text)) > 10
    assert text == brought_up_to_date(text), "run `python tests/test_readme.py`"


def test_ci_runs_the_readmes_test_command():
    commands = re.findall(r"^python3 -m venv .*$", README.read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", ["README.md", "notebooks/README.md"])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    networks, engine, wrong = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(networks, "README.md", "exec"), {})
    assert "724,406,816" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["alexnet.png"]
    with pytest.raises(AnomalyError, match=r"^log, README.md line 4: its value is \(2,\) with 1 infinite"):
        exec(compile(wrong, "README.md", "exec"), {})
    exec(compile(engine, "README.md", "exec"), {})
    shape, report = capsys.readouterr().out.splitlines()
    assert shape == "(4, 3, 3, 3)"
    assert report.endswith("all agree")


if __name__ == "__main__":
    README.write_text(brought_up_to_date(README.read_text()))
