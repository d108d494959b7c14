"""What a model gives for the samples, and what that costs: in a process of its own, so that nobody else's memory,
imports or warm caches count.

`python -m clipkit.exporting.measuring SPEC.json` is that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Target, Tower, Wish
from clipkit.exporting.samples import Samples

if TYPE_CHECKING:
    from clipkit.models.base import Encoder

_ALONE: Final = 20  # inputs that are timed one by one
_WARM: Final = 2  # runs before that
_PATIENCE: Final = 10.0  # seconds that timing one by one may take, beyond the first few
_MB: Final = 1e6


@dataclass(frozen=True)
class Subject:
    """What is measured: the export in `folder`, or where that is "" the source that it is held to.

    model, adapter: of the source. target: its name in EXPORTERS. towers: whose costs are counted; also: whose features
    are wanted besides.
    """

    model: str | None
    target: str
    wish: Wish
    folder: str = ""
    towers: tuple[Tower, ...] = ("image", "text")
    also: tuple[Tower, ...] = ()

    def open(self) -> Encoder:
        """An encoder on one core."""
        from clipkit.exporting.source import open_encoder
        from clipkit.methods import EXPORTERS

        target: Target = EXPORTERS.get(self.target)(self.wish)
        if self.folder:
            return target.open(Path(self.folder))
        return target.reference(*open_encoder(self.model, self.wish.adapter))


@dataclass(frozen=True)
class Measured:
    """rows: tower -> features f32 [n, d] (of a target that answers: probabilities). scale, bias: of its logits.

    costs: load_s (from nothing of the model imported to the first answer of each tower), image_ms and text_ms (one
    alone, the median), images_per_s and texts_per_s (in full batches of the encoder's size, where there is one),
    memory_mb (resident pages of the process at their peak, where it is known). Preprocessing and tokenizing count,
    reading the samples does not. One core.
    """

    rows: dict[str, np.ndarray]
    costs: dict[str, float]
    identity: str
    scale: float
    bias: float | None


def measure(
    opened: Callable[[], Encoder], samples: Samples, towers: Sequence[Tower], also: Sequence[Tower] = ()
) -> Measured:
    """Open an encoder, and measure it on the samples. `also`: towers whose rows are wanted, but not their costs."""
    begun = time.perf_counter()
    encoder = opened()
    first: dict[Tower, Callable[[], object]] = {
        "image": lambda: _images(encoder, [samples.pictures[0]]),
        "text": lambda: encoder.encode_texts([samples.texts[0]]),
    }
    for tower in towers:  # some load a tower when it is first asked: that is no part of its speed
        first[tower]()
    costs, rows = {"load_s": time.perf_counter() - begun}, dict[str, np.ndarray]()
    for tower in towers:
        rows[tower], spent = _tower(encoder, tower, samples)
        costs |= spent
    if memory := peak_memory():
        costs["memory_mb"] = memory / _MB
    for tower in also:
        rows[tower] = _rows(encoder, tower, samples)[0]
    return Measured(rows, costs, encoder.identity.digest, encoder.logit_scale, encoder.logit_bias)


def measure_apart(subject: Subject, samples: Path, scratch: Path) -> Measured:
    """The same in a fresh process. samples: as `save` wrote them. Raises ClipkitError where it fails there."""
    spec, made = scratch / "spec.json", scratch / "measured.npz"
    spec.write_text(json.dumps({"subject": asdict(subject), "samples": str(samples), "made": str(made)}))
    command = [sys.executable, "-P", "-m", "clipkit.exporting.measuring", str(spec)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if done.returncode > 0 and said else f"its process ended with {done.returncode}"
        raise ClipkitError(f"the {'export' if subject.folder else 'model'} cannot be measured: {why}")
    with np.load(made, allow_pickle=False) as arrays:
        said = json.loads(str(arrays["said"]))
        return Measured({name: arrays[name] for name in arrays.files if name != "said"}, **said)


def save(samples: Samples, folder: Path) -> Path:
    """Write samples for other processes: pixels as they are, a file a picture, so that few are in memory at once."""
    folder.mkdir()
    for number, picture in enumerate(samples.pictures):
        np.save(folder / f"{number:06}.npy", np.asarray(picture), allow_pickle=False)
    (folder / "texts.json").write_text(json.dumps([samples.name, list(samples.texts)]), encoding="utf-8")
    return folder


class Stored(Sequence[Image.Image]):
    """Pictures that `save` wrote, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.npy"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        return Image.fromarray(np.load(self._paths[index], allow_pickle=False))


def peak_memory() -> int | None:
    """Bytes that this process held at most; None where nothing says it.

    Not ru_maxrss on Linux: a child begins with that of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _tower(encoder: Encoder, tower: Tower, samples: Samples) -> tuple[np.ndarray, dict[str, float]]:
    rows, per_second = _rows(encoder, tower, samples)
    alone = _alone(encoder, tower, samples) * 1e3
    return rows, {f"{tower}_ms": alone, f"{tower}s_per_s": per_second}


def _rows(encoder: Encoder, tower: Tower, samples: Samples) -> tuple[np.ndarray, float]:
    """Rows [n, d] of all samples of a tower, and how many of them the encoder made in a second.

    The last batch is rarely full, and some backends fill it up: its time counts only where there is no other.
    """
    parts: list[np.ndarray] = []
    taken: list[tuple[int, float]] = []
    size = encoder.batch_size
    for inputs in _batches(samples.pictures if tower == "image" else samples.texts, size):
        begun = time.perf_counter()
        parts.append(_images(encoder, inputs) if tower == "image" else encoder.encode_texts(inputs))
        taken.append((len(inputs), time.perf_counter() - begun))
    counted = [pair for pair in taken if pair[0] == size] or taken
    return np.concatenate(parts), sum(count for count, _ in counted) / sum(seconds for _, seconds in counted)


def _alone(encoder: Encoder, tower: Tower, samples: Samples) -> float:
    """The median seconds of one input alone. A backend that runs batches of one shape runs one of 1."""
    inputs: Sequence[Any] = samples.pictures if tower == "image" else samples.texts
    before, encoder.batch_size = encoder.batch_size, 1
    taken: list[float] = []
    until = time.perf_counter() + _PATIENCE
    try:
        for number in range(_ALONE + _WARM):
            one = [inputs[number % len(inputs)]]
            begun = time.perf_counter()
            _ = _images(encoder, one) if tower == "image" else encoder.encode_texts(one)
            taken.append(time.perf_counter() - begun)
            if len(taken) > 2 * _WARM and time.perf_counter() > until:
                break
    finally:
        encoder.batch_size = before
    return median(taken[_WARM:])


def _images(encoder: Encoder, pictures: Sequence[Image.Image]) -> np.ndarray:
    return encoder.encode_images([encoder.preprocess(picture) for picture in pictures])[0]


def _batches(inputs: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(inputs), size):
        yield [inputs[number] for number in range(start, min(start + size, len(inputs)))]


def main(spec: Path) -> int:
    """Measure what SPEC says, and write it where it says."""
    said = json.loads(spec.read_text())
    wish = Wish(**{name: _tupled(value) for name, value in said["subject"].pop("wish").items()})
    subject = Subject(wish=wish, **{name: _tupled(value) for name, value in said["subject"].items()})
    folder = Path(said["samples"])
    name, texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    try:
        found = measure(subject.open, Samples(Stored(folder), texts, name), subject.towers, subject.also)
    except ClipkitError as error:
        print(error, file=sys.stderr)
        return 1
    rest = asdict(replace(found, rows={}))
    del rest["rows"]
    np.savez(said["made"], said=np.array(json.dumps(rest)), **found.rows)  # type: ignore[arg-type]
    return 0


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
