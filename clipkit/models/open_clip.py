"""The torch backend: any model of open_clip, on CUDA, MPS or CPU.

torch's results for a row depend on the shape of its batch (1e-7 on a CPU), but, in one shape, neither on its place nor
on its neighbours (measured for ViT, ResNet, ConvNeXt and CoCa towers at 4, 8 and 16; tests hold it). So a call always
runs one shape, padded. On a CPU it takes one thread of torch's: the runner makes as many calls at once as it has cores.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from torch import nn
from torch.nn import functional

from clipkit.errors import ClipkitError, RecordError
from clipkit.models import checkpoint, download, hub_folder, listing
from clipkit.models.base import Encoder, Identity, Preprocess
from clipkit.models.device import choose, choose_precision
from clipkit.models.identity import weights_digest
from clipkit.models.image_tower import ImageTower
from clipkit.models.model_tokenizer import LOCAL, ModelTokenizer, copy_tokenizer, model_tokenizer
from clipkit.models.names import ModelName

if TYPE_CHECKING:
    from PIL import Image

open_clip.add_model_config(listing.TINY)
BATCH = {"cpu": 8, "cuda": 64, "mps": 32}  # on a CPU: the best images/s per core of 1 to 32, with ViT-B-32
_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def load(name: ModelName, *, device: str = "auto", precision: str = "auto", threads: int = 1) -> OpenClipEncoder:
    """An encoder from a tag, a checkpoint file, a hub repository or a folder in the hub's layout.

    threads: torch's own, for the whole process. Raises ClipkitError for weights that cannot be had or don't fit.
    """
    device = choose(device)
    precision = choose_precision(device, precision)
    torch.set_num_threads(threads)
    source = resolve(name)
    tokenizer = model_tokenizer(source.tokenizer, source.config["text_cfg"])
    model, notices = _build(name, source)
    identity = Identity(
        name=name.shown,
        weights=weights_digest(model.state_dict()),
        preprocess=preprocess_of(source.preprocess, model),
        activation=activation_of(model),
        dim=int(source.config["embed_dim"]),
    )
    return OpenClipEncoder(model, tokenizer, identity, source, device=device, precision=precision, notices=notices)


def untrained(arch: str, *, seed: int, device: str = "auto", bias: float | None = None) -> OpenClipEncoder:
    """An encoder of an architecture with random weights, drawn by a seed, the same on every device; f32. For training.

    bias: a logit bias that it starts with, where the architecture has none (for SigLIP's loss).
    """
    device = choose(device)
    config = copy.deepcopy(open_clip.get_model_config(arch))
    if bias is not None:
        config.setdefault("init_logit_bias", bias)
    source = Source(arch, config, Path(), listing.usual_preprocess(arch), arch)
    tokenizer = model_tokenizer(arch, config["text_cfg"])
    with _quiet(), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        extra = {name: config[name] for name in ("init_logit_bias",) if name in config}
        model = open_clip.create_model(arch, load_weights=False, pretrained_text=False, **extra)
        if (decoder := getattr(model, "text_decoder", None)) is not None:  # whose init_parameters open_clip never calls
            nn.init.normal_(decoder.text_projection, std=decoder.width**-0.5)
    identity = Identity(
        name=arch,
        weights=weights_digest(model.state_dict()),
        preprocess=preprocess_of(source.preprocess, model),
        activation=activation_of(model),
        dim=int(config["embed_dim"]),
    )
    return OpenClipEncoder(model, tokenizer, identity, source, device=device, precision="f32", notices=[])


class OpenClipEncoder(Encoder):
    """An open_clip model; `model` is in eval mode and belongs to the encoder from here on."""

    backend = "open_clip"
    notices: list[str]

    def __init__(
        self,
        model: nn.Module,
        tokenizer: ModelTokenizer,
        identity: Identity,
        source: Source,
        *,
        device: str,
        precision: str,
        notices: list[str],
    ) -> None:
        self.identity = identity
        self.device, self.precision = device, precision
        self.notices = notices
        kind = device.partition(":")[0]
        self.batch_size, self.lanes = BATCH[kind], 0 if kind == "cpu" else 1
        self.logit_scale = float(model.logit_scale.detach().exp())  # type: ignore[operator]
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach())
        self.context_length = tokenizer.context_length
        self._tokenizer = tokenizer
        self._source = source
        self._model = model.to(device).eval()
        self._tower = ImageTower(self._model.visual)  # type: ignore[arg-type]
        self.backbone_dim = self._tower.backbone_dim
        if kind == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = False

    @property
    def fresh(self) -> bool:
        """Whether the weights are random: `untrained`."""
        return self._source.weights == Path()

    @property
    def space(self) -> str:
        return f"{super().space}/torch-{torch.__version__}/{self.batch_size}"

    def preprocess(self, image: Image.Image) -> np.ndarray:
        from clipkit.images.transform import apply

        return apply(self.identity.preprocess, image)

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        joint, behind = self._run(self._images, torch.from_numpy(np.ascontiguousarray(batch)))
        return joint, behind if backbone else None

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, self.identity.dim), dtype=np.float32)
        return self._run(self._texts, torch.from_numpy(self._tokenizer(texts)))[0]

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [self._tokenizer.count(text) for text in texts]

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids int64 [n, context_length], on the CPU; a longer text is cut."""
        return torch.from_numpy(self._tokenizer(texts))

    def module(self) -> nn.Module:
        """A copy of the open_clip model, in eval mode on the encoder's device, to do with as one likes."""
        model = copy.deepcopy(self._model)
        self._tower.restore(model.visual)  # type: ignore[arg-type]
        return model

    def rebuilt(self, model: nn.Module, name: str) -> OpenClipEncoder:
        """An encoder on other weights of the same architecture; `model` (as `module` gives it) is its own from here on.

        name: what its identity is called. Tokenizer, preprocessing, device and precision are this encoder's.
        """
        identity = replace(self.identity, name=name, weights=weights_digest(model.state_dict()))
        encoder = OpenClipEncoder(
            model, self._tokenizer, identity, self._source, device=self.device, precision=self.precision, notices=[]
        )
        encoder.batch_size = self.batch_size
        return encoder

    def save_model(self, folder: str | Path) -> None:
        """Write the model as the hub has them: open_clip loads FOLDER, and so does `--model ./FOLDER/`, as this model.

        FOLDER appears when it is whole. Raises UsageError unless it is new, or empty.
        """
        self.save_state(folder, self.module().state_dict())

    def save_state(
        self,
        folder: str | Path,
        state: Mapping[str, torch.Tensor],
        also: Callable[[Path], None] | None = None,
    ) -> None:
        """The same for other weights of this architecture, by open_clip's names.

        also: writes files of its own into the folder that is being made.
        """
        config = self._source.config

        def add(fresh: Path) -> None:
            copy_tokenizer(self._source.tokenizer, config["text_cfg"], fresh)
            if also:
                also(fresh)

        hub_folder.write(folder, state, config, self.identity.preprocess, add)

    def close(self) -> None:
        del self._model, self._tower
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _images(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        joint, behind = self._tower(batch)
        return functional.normalize(joint.float(), dim=-1), None if behind is None else behind.float()

    def _texts(self, batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        features = self._model.encode_text(batch, normalize=False)  # type: ignore[operator]
        return functional.normalize(features.float(), dim=-1), None

    def _run(
        self, forward: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]], rows: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows [n, ...] through the model in batches of one padded shape."""
        joint, behind = [], []
        start = 0
        while start < len(rows):
            size = self.batch_size
            part = rows[start : start + size]
            try:
                first, second = self._fixed(forward, part, size)
            except torch.OutOfMemoryError:
                self._halve(size)
                continue
            except RuntimeError as error:
                if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
                    raise
                self._halve(size)
                continue
            joint.append(first)
            behind.append(second)
            start += size
        if not joint:
            return np.zeros((0, self.identity.dim), np.float32), np.zeros((0, self.backbone_dim or 0), np.float32)
        trunk = [part for part in behind if part is not None]
        return np.concatenate(joint), np.concatenate(trunk) if trunk else None

    def _fixed(
        self,
        forward: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]],
        part: torch.Tensor,
        size: int,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        padded = part.new_zeros((size, *part.shape[1:]))  # torch's own memory: its alignment is part of the promise
        padded[: len(part)] = part
        dtype = _DTYPES[self.precision]
        lower = torch.autocast(self.device.partition(":")[0], dtype=dtype, enabled=dtype != torch.float32)
        with torch.inference_mode(), lower:
            first, second = forward(padded.to(self.device))
        if not torch.isfinite(first[: len(part)]).all():
            hint = "try --precision f32" if self.precision != "f32" else "the checkpoint may be broken"
            message = f"{self.identity.name} gave features that are not finite in {self.precision}"
            raise RecordError("not-finite", message, hint)
        return tuple(None if out is None else out[: len(part)].cpu().numpy() for out in (first, second))  # type: ignore[return-value]

    def _halve(self, size: int) -> None:
        if size == 1:
            raise ClipkitError(
                f"out of memory on {self.device} even for one image at a time",
                "use --device cpu, a smaller model, or free it",
            )
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        self.batch_size = size // 2
        self.notices.append(f"out of memory on {self.device}: batches are {size // 2} instead of {size} from here on")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from. architecture, tokenizer: as open_clip takes them (`ViT-B-32`, `local-dir:...`)."""

    architecture: str
    config: dict[str, Any]
    weights: Path
    preprocess: dict[str, Any]
    tokenizer: str


def resolve(name: ModelName) -> Source:
    """Find (or fetch) the files of a model and what describes them."""
    if name.kind == "tag":
        entry = listing.pretrained()[name.arch][name.tag]
        return Source(name.arch, listing.config(name.arch), download.weights(entry, name.shown), entry, name.arch)
    if name.kind == "checkpoint":
        config = open_clip.get_model_config(name.arch)
        beside = checkpoint.sidecar(name.path.parent) or {}
        preprocess = beside.get("preprocess_cfg") or listing.usual_preprocess(name.arch)
        carries = beside and (name.path.parent / "tokenizer.json").is_file()
        return Source(name.arch, config, name.path, preprocess, f"{LOCAL}{name.path.parent}" if carries else name.arch)
    folder = name.path if name.kind == "folder" else download.repository(name.repository)
    described = checkpoint.sidecar(folder)
    if described is None:
        raise ClipkitError(f"{name.given} has no {listing.HUB_CONFIG}: it is no open_clip model")
    weights = next((path for file in listing.hub_names() if (path := folder / file).is_file()), None)
    if weights is None:
        raise ClipkitError(f"{name.given} has no weights: expected {' or '.join(listing.hub_names())} in it")
    local = f"{LOCAL}{folder}"
    tokenizer = local if name.kind == "folder" else name.given
    return Source(local, described["model_cfg"], weights, described.get("preprocess_cfg") or {}, tokenizer)


def _build(name: ModelName, source: Source) -> tuple[nn.Module, list[str]]:
    """The model with its weights, f32 on the CPU, and what the user should hear."""
    shapes = checkpoint.read_shapes(source.weights)
    notices = check_activation(name, source, shapes)
    model = build(source, name.shown)
    with _quiet():
        notices += checkpoint.fill(model, source.weights, shapes, name.shown)
    return model, notices


def check_activation(name: ModelName, source: Source, shapes: checkpoint.Shapes) -> list[str]:
    """Raise ClipkitError for weights trained with another activation; a notice where nothing says with which."""
    if name.kind != "checkpoint":
        return []
    trained = checkpoint.trained_with(name.path, shapes)
    quick_gelu = bool(source.config.get("quick_gelu"))
    if trained is not None:
        checkpoint.check_activation(f"{name.arch}:{name.path}", name.arch, quick_gelu, trained)
    elif (other := listing.twin(name.arch)) is not None:
        has = "QuickGELU" if quick_gelu else "GELU"
        return [
            f"nothing says what activation {name.path} was trained with: {has} is taken, as {name.arch} has it. "
            f"If that is wrong, use {other}; an open_clip_config.json beside the file settles it"
        ]
    return []


def build(source: Source, shown: str, *, device: str = "cpu") -> nn.Module:
    """The model, not yet filled: random weights, or none where device is `meta`."""
    with _quiet(), torch.device(device):
        try:
            model: nn.Module = open_clip.create_model(
                source.architecture, load_weights=False, pretrained_text=False, device=device
            )
        except (RuntimeError, OSError) as error:  # it says which package a tower needs
            raise ClipkitError(f"open_clip cannot build {shown}: {str(error).splitlines()[0]}") from None
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's log lines, which warn that a model not yet filled is random."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def preprocess_of(config: dict[str, Any], model: nn.Module) -> Preprocess:
    """open_clip's description of the pixels as ours; the size is the image tower's."""
    described = open_clip.transform.PreprocessCfg(**open_clip.transform.merge_preprocess_dict({}, config))
    size = model.visual.image_size  # type: ignore[union-attr]
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return Preprocess(
        size=(int(height), int(width)),
        mean=_channels(described.mean),
        std=_channels(described.std),
        resize_mode=described.resize_mode,
        interpolation="bilinear" if described.interpolation == "bilinear" else "bicubic",  # `random` is for training
        fill=described.fill_color,
    )


def _channels(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def activation_of(model: nn.Module) -> str:
    """The GELUs of a model: `gelu`, `quickgelu`, `gelu_tanh`, or several with `+`."""
    found = set()
    for module in model.modules():
        kind = type(module).__name__
        if kind == "QuickGELU":
            found.add("quickgelu")
        elif kind == "GELUTanh" or (kind == "GELU" and getattr(module, "approximate", "none") == "tanh"):
            found.add("gelu_tanh")
        elif kind == "GELU":
            found.add("gelu")
    return "+".join(sorted(found)) or "none"
