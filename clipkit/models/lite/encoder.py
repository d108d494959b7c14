"""The carried model on onnxruntime: one image or one text a run, so that no row can depend on its neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.models.base import Encoder, Identity, Preprocess
from clipkit.models.sessions import Once, kernels, open_session

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer

FOLDER = Path(__file__).parent
SEMANTIC_DIM, DETAIL_DIM, BACKBONE_DIM = 384, 128, 1280

PREPROCESS = Preprocess(size=(224, 224), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)  # (x - 127) / 128


def load(threads: int = 1) -> Lite:
    """The carried model. threads: cores that one `encode_images` or `encode_texts` may use; results are the same.

    Raises ClipkitError if its files are missing.
    """
    return Lite(threads)


class Lite(Encoder):
    """Features are [semantic, 2 detail] / sqrt(5) of an image and [semantic, 0] of a text, 384 + 128 wide.

    Texts meet the semantic part alone; images meet each other in both. Each of the two networks is opened when it is
    first used. Safe to call from several threads.
    """

    backend = "lite"

    def __init__(self, threads: int = 1) -> None:
        manifest = json.loads(_carried("lite.json").read_bytes())
        self.identity = Identity("lite", manifest["weights"], PREPROCESS, "relu6", SEMANTIC_DIM + DETAIL_DIM)
        self.logit_scale = manifest["logit_scale"]
        self.context_length = manifest["context_length"]
        self.backbone_dim = BACKBONE_DIM
        self.few_shot_space = "backbone"  # far better than its joint features, which had to meet the texts
        self._threads = threads
        self._image_network = Once(lambda: _open_session("image.onnx"))
        self._text_network = Once(lambda: _open_session("text.onnx"))
        self._tokenizer = Once(_open_tokenizer)

    @property
    def space(self) -> str:
        return f"{super().space}/{kernels()}"

    def preprocess(self, image: Image.Image) -> np.ndarray:
        from clipkit.images.transform import apply

        return apply(PREPROCESS, image)

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels f32 [n, 3, 224, 224] to unit features f32 [n, 512] and, if asked for, backbone ones [n, 1280]."""
        network = self._image_network()
        joint = np.empty((len(batch), self.identity.dim), np.float32)
        pooled = np.empty((len(batch), BACKBONE_DIM), np.float32)

        def encode(row: int) -> None:
            joint[row], pooled[row] = (
                output[0] for output in network.run(["joint", "pooled"], {"pixels": batch[row][None]})
            )

        self._each(encode, len(batch))
        return joint, pooled if backbone else None

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Texts to unit features f32 [n, 512]; a text is cut to 128 tokens, which the text model was trained at."""
        network = self._text_network()
        tokens = [self._cut(ids) for ids in self._ids(texts)]
        joint = np.empty((len(texts), self.identity.dim), np.float32)

        def encode(row: int) -> None:
            joint[row] = network.run(["joint"], {"ids": np.array([tokens[row]])})[0][0]

        self._each(encode, len(texts))
        return joint

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._ids(texts)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        tokenizer = self._tokenizer()
        # half a surrogate pair, as in an undecodable argument, is no text to the tokenizer: it reads `?`
        return [tokenizer.encode(text.encode("utf-8", "replace").decode()).ids for text in texts]

    def _cut(self, ids: list[int]) -> list[int]:
        """The first tokens that fit, and the closing [SEP]."""
        return ids if len(ids) <= self.context_length else [*ids[: self.context_length - 1], ids[-1]]

    def _each(self, encode: Callable[[int], None], rows: int) -> None:
        if min(self._threads, rows) <= 1:
            for row in range(rows):
                encode(row)
            return
        with ThreadPoolExecutor(min(self._threads, rows)) as pool:
            for _ in pool.map(encode, range(rows)):
                pass


def _open_session(name: str) -> Any:
    return open_session(_carried(name), 1)  # rows, not operators, are spread over cores


def _open_tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_carried("tokenizer.json")))


def _carried(name: str) -> Path:
    """A file of the model."""
    path = FOLDER / name
    if not path.is_file():
        raise ClipkitError(f"the file {name} of the model lite is missing", "install clipkit again")
    return path
