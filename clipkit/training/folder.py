"""A run is a folder: checkpoints, metrics.jsonl, run.json, and the model in the end."""

from __future__ import annotations

from pathlib import Path

from clipkit.stream.record import encode_json
from clipkit.training.loop import Step


class RunFolder:
    """Only the first process writes. model/: the trained model, as `--model ./RUN/model/` and open_clip load it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def hear(self, step: Step) -> None:
        """Log a step."""
        with open(self.path / "metrics.jsonl", "ab") as file:
            file.write(encode_json({"step": step.step, "loss": step.loss, **step.parts, "lr": step.lr}) + b"\n")
