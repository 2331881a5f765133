"""The folder that a training run leaves behind: settings, log, checkpoint, pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .checkpoint import CHECKPOINT, write_whole
from .config import Config


class RunFolder:
    """config.toml, log.jsonl, checkpoint.safetensors, curves.png and filters.png of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.log_file = path / "config.toml", path / "log.jsonl"
        self.checkpoint = path / CHECKPOINT
        self.curves, self.filters = path / "curves.png", path / "filters.png"

    @classmethod
    def unused(cls, data: str) -> RunFolder:
        """The first of runs/digits-001, runs/digits-002, ... that does not exist."""
        stem = Path(data).name or "run"
        number = 1
        while os.path.lexists(path := Path("runs") / f"{stem}-{number:03}"):
            number += 1
        return cls(path)

    def holds_something(self) -> bool:
        """Whether there is anything of that name, other than an empty folder."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def create(self, config: Config, exist_ok: bool) -> None:
        """Make the folder, with the settings and an empty log in it."""
        self.path.mkdir(parents=True, exist_ok=exist_ok)
        self.write_config(config)
        write_whole(self.log_file, b"")

    def write_config(self, config: Config) -> None:
        """Write down the settings, in a form that --config reads."""
        write_whole(self.config, config.to_toml().encode())

    def log(self, **line: Any) -> None:
        """Append one line to the log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def sync_log(self) -> None:
        """Have the log on the disk, so that a checkpoint is never ahead of it."""
        with self.log_file.open("a") as file:
            os.fsync(file.fileno())

    def log_lines(self) -> list[dict[str, Any]]:
        """The log's lines; a last one that was cut off in the middle is left out."""
        lines = []
        for text in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
        return lines

    def rewind_log(self, step: int, epochs: int) -> None:
        """Drop what was logged after a checkpoint that was made after `step` steps and `epochs` whole epochs."""
        kept = [
            line
            for line in self.log_lines()
            if (line["epoch"] <= epochs if "test_top1" in line else line["step"] <= step)
        ]
        write_whole(self.log_file, "".join(json.dumps(line) + "\n" for line in kept).encode())
