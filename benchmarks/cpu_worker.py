"""The process of one contestant: `python -m benchmarks.cpu_worker MODULE` answers questions, one a line, in JSON.

A question is {"ask": name of a method, "with": {its arguments}}, and the answer {"answer": ...} or {"problem": text}.
The first answer, which nobody asks for, is what the contestant says about itself.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main(module: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answered(question: Callable[[], Any]) -> bool:
        try:
            line, went_well = {"answer": question()}, True
        except Exception as error:  # whatever a library raises: it is told, and the others go on
            line, went_well = {"problem": f"{type(error).__name__}: {error}"}, False
        print(json.dumps(line), file=answers, flush=True)
        return went_well

    contestant: Any = None

    def introduced() -> dict[str, Any]:
        nonlocal contestant
        contestant = importlib.import_module(module).Contestant()
        return contestant.about()

    if not answered(introduced):
        return
    for line in sys.stdin:
        question = json.loads(line)
        answered(functools.partial(getattr(contestant, question["ask"]), **question["with"]))


if __name__ == "__main__":
    main(sys.argv[1])
