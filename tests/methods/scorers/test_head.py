"""Linear heads from files: what they say, and the files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import clipkit
from clipkit.errors import ClipkitError, UsageError
from clipkit.images.decode import decode
from tests.methods.scorers.scoring import scored, scores, smooth

LITE = str(clipkit.load("lite").identity)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    smooth(5).save(folder / "a.png")
    return folder


def feature(photos: Path) -> np.ndarray:
    lite = clipkit.load("lite")
    return lite.encode_images([lite.preprocess(decode((photos / "a.png").read_bytes()))])[0][0].astype(float)


def write(path: Path, metadata: dict[str, str] | None = None, **tensors: np.ndarray) -> str:
    save_file(tensors, path, metadata)
    return str(path)


def run(photos: Path, head: str) -> list[dict[str, Any]]:
    return scored([{"image": "a.png"}], ["head"], photos, options={"head": head})


@pytest.mark.parametrize("shape", [(512,), (1, 512)])
@pytest.mark.parametrize("bias", [None, (), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_it_is_weight_times_feature_plus_bias(
    shape: tuple[int, ...], bias: tuple[int, ...] | None, dtype: Any, photos: Path, tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).standard_normal(512).astype(dtype)
    tensors = {"weight": weight.reshape(shape)} | ({} if bias is None else {"bias": np.full(bias, 2.5, dtype)})
    (row,) = scores(
        [{"image": "a.png"}],
        ["head"],
        photos,
        options={"head": write(tmp_path / "nice.safetensors", {"model": LITE}, **tensors)},
    )
    expected = float(weight.astype(float) @ feature(photos)) + (0 if bias is None else 2.5)
    assert row == {"nice": pytest.approx(expected, abs=2e-6)}


def test_a_pth_is_converted_as_the_docs_say(photos: Path, tmp_path: Path) -> None:
    """The lines of docs/scores.md, on a file like LAION's."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(512, 1)
    torch.save(layer.state_dict(), tmp_path / "linear.pth")
    text = (Path(__file__).parents[3] / "docs/scores.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    code = code.replace("ViT-L-14-quickgelu:openai", "lite").replace("sa_0_4_vit_l_14_linear.pth", "linear.pth")
    exec(
        code.replace('"linear.pth"', repr(str(tmp_path / "linear.pth"))).replace(
            '"aesthetic', f'"{tmp_path}/aesthetic'
        ),
        {},
    )
    (row,) = scores([{"image": "a.png"}], ["head"], photos, options={"head": str(tmp_path / "aesthetic.safetensors")})
    with torch.no_grad():
        expected = layer.double()(torch.from_numpy(feature(photos)))
    assert row == {"aesthetic": pytest.approx(float(expected), abs=2e-6)}


def test_the_metadata_may_name_the_score_and_via_names_head_and_model(photos: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"model": LITE.partition("@")[2], "name": "beauty"}, weight=np.ones(512))
    (record,) = run(photos, path)
    assert list(record["scores"]) == ["beauty"]
    maker = record["via"]["scores.beauty"]
    assert maker.startswith("head@") and maker.endswith(f"/{LITE}")


@pytest.mark.parametrize(
    ("metadata", "tensors", "said"),
    [
        (
            {"model": "ViT-L-14:openai@0123456789ab"},
            {"weight": (512,)},
            "is for ViT-L-14:openai@0123456789ab, not for lite@",
        ),
        ({"model": LITE}, {"weight": (768,)}, "768 weights, for features of 512"),
        (None, {"weight": (512,)}, "doesn't say which model"),
        ({"model": LITE}, {"weight": (2, 512)}, r"expected `weight` \[d\]"),
        ({"model": LITE}, {"weight": (512,), "bias": (2,)}, r"expected `weight` \[d\]"),
        ({"model": LITE}, {"0.weight": (512, 512), "2.weight": (1, 512)}, r"0.weight \[512, 512\]"),
        ({"model": LITE, "name": "no/name"}, {"weight": (512,)}, "cannot be the name"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    metadata: dict[str, str] | None, tensors: dict[str, tuple[int, ...]], said: str, photos: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "h.safetensors", metadata, **{k: np.zeros(v, np.float32) for k, v in tensors.items()})
    with pytest.raises(ClipkitError, match=said):
        run(photos, path)


def test_a_file_that_is_no_head_is_refused(photos: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1, 512)}, tmp_path / "h.pth")
    with pytest.raises(ClipkitError, match=r"cannot read .*h\.pth as safetensors"):
        run(photos, str(tmp_path / "h.pth"))
    with pytest.raises(UsageError, match="no file"):
        run(photos, str(tmp_path / "absent.safetensors"))
    path = write(tmp_path / "nan.safetensors", {"model": LITE}, weight=np.full(512, np.nan))
    with pytest.raises(ClipkitError, match="not finite"):
        run(photos, path)


def test_bf16_weights_are_refused_in_words(photos: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    save_torch({"weight": torch.ones(512, dtype=torch.bfloat16)}, tmp_path / "b.safetensors", {"model": LITE})
    with pytest.raises(ClipkitError, match="holds BF16"):
        run(photos, str(tmp_path / "b.safetensors"))
