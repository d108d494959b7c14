"""The tensors of a checkpoint file, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from clipkit.errors import ClipkitError
from clipkit.models import checkpoint

# open_clip drops the last itself: transformers no longer has it.
_LEFT_OUT: Final = frozenset((*checkpoint.OPENAI_ENTRIES, "text.transformer.embeddings.position_ids"))


class WeightsFile:
    """A .safetensors, .pt, .pth or .bin file. shapes: its tensors, by the names that a model has them under.

    Raises ClipkitError for a file that is none, cut short, or holds other things than weights.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = checkpoint.read_shapes(path)
        self.shapes = {name: shape for name, shape in found.items() if name not in _LEFT_OUT}

    def open(self) -> OpenWeights:
        """Its tensors, mapped into memory from here to the end of the `with`."""
        return OpenWeights(self)


class OpenWeights(Mapping[str, torch.Tensor]):
    """Name -> tensor on the CPU, floats as f32 whatever they are stored in, as a model has them once it is loaded.

    What is read stays in memory as part of the file, until it is closed.
    """

    def __init__(self, file: WeightsFile) -> None:
        self._file = file
        self._held: Any = None
        self._opened: AbstractContextManager[Any] = nullcontext()
        self._prefix = ""

    def __enter__(self) -> OpenWeights:
        path = self._file.path
        if path.suffix == ".safetensors":
            try:
                self._opened = safe_open(path, framework="pt")
                self._held = self._opened.__enter__()  # type: ignore[no-untyped-call]
            except (SafetensorError, OSError) as error:
                raise ClipkitError(f"cannot read {path}: {error}") from None
            names = set(self._held.keys())
        else:
            self._held = checkpoint.read_pickled(path)
            names = set(self._held)
        wrapped = next(iter(self._file.shapes)) not in names
        self._prefix = checkpoint.WRAPPED if wrapped else ""
        return self

    def __exit__(self, *caught: Any) -> None:
        self._opened.__exit__(*caught)
        self._held = None

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._file.shapes:
            raise KeyError(name)
        stored = self._prefix + name
        try:
            held = self._held
            tensor: torch.Tensor = held[stored] if isinstance(held, dict) else held.get_tensor(stored)
        except (SafetensorError, OSError, KeyError) as error:
            raise ClipkitError(f"cannot read {name} from {self._file.path}: {error}") from None
        return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.shapes)

    def __len__(self) -> int:
        return len(self._file.shapes)
