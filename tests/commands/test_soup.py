"""`clipkit soup uniform` and `clipkit soup task`: folders that open_clip and every verb load, or nothing at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from clipkit import cli
from clipkit.models.load import load
from clipkit.soups import mixing, recipes
from clipkit.soups.shown import Voice, show
from tests.conftest import InProcess
from tests.soups import small

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    small.register(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [small.stored(folder / f"{number}.safetensors", number) for number in range(3)]


def made(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.run(["soup", *map(str, args)]) == 0, capsys.readouterr().err
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_a_soup_is_a_model(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To clipkit by its digest; to open_clip by what it computes, which is the mean of the weights."""
    out = tmp_path / "soup"
    said = made(capsys, "uniform", *models, "-o", out)
    encoder = load(f"{out}/")
    assert str(encoder.identity) == said["model"]
    assert {path.name for path in out.iterdir()} == {WEIGHTS, "open_clip_config.json", "soup.json"}
    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    held = [load_file(name.partition(":")[2]) for name in models]
    for name, value in plain.state_dict().items():
        mean = sum(one[name].double() for one in held) / len(held)
        np.testing.assert_allclose(value.numpy(), mean.numpy(), rtol=2**-23, err_msg=name)
    pixels = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(plain.eval().encode_image(pixels), dim=-1)
    np.testing.assert_allclose(encoder.encode_images(pixels.numpy())[0], expected.numpy(), atol=1e-6)


def test_the_card_says_what_was_mixed_and_nothing_of_where(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("here", "there"):  # the same files elsewhere, in another order
        folder = tmp_path / place
        folder.mkdir()
        for name in models:
            shutil.copy(name.partition(":")[2], folder)
    names = [f"soup-vit:{tmp_path / 'there' / Path(name).name}" for name in reversed(models)]
    said = made(capsys, "uniform", *models, "-o", tmp_path / "here/soup")
    made(capsys, "uniform", *names, "-o", tmp_path / "there/soup")
    read = {path.name: path.read_bytes() for path in (tmp_path / "here/soup").iterdir()}
    assert read == {path.name: path.read_bytes() for path in (tmp_path / "there/soup").iterdir()}
    card = json.loads(read["soup.json"])
    assert card == {name: value for name, value in said.items() if name not in ("out", "model")} | {
        "format": 1,
        "clipkit": card["clipkit"],
    }
    assert card["weights"] == load(f"{tmp_path}/here/soup/").identity.weights
    digests = {name.rpartition("/")[2]: load(name).identity.weights for name in models}
    assert {term["model"].rpartition(":")[2]: term["weights"] for term in card["terms"]} == digests
    assert [term["coefficient"] for term in card["terms"]] == [1 / 3] * 3


def test_a_task_vector(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, one, two = models
    said = made(capsys, "task", base, "--add", one, "--negate", two, "--scale", "0.25", "-o", tmp_path / "made")
    terms = {term["model"].rpartition(":")[2]: term["coefficient"] for term in said["terms"]}
    assert terms == {"0.safetensors": 1.0, "1.safetensors": 0.25, "2.safetensors": -0.25}
    held = [load_file(name.partition(":")[2]) for name in models]
    for name, value in load_file(tmp_path / "made" / WEIGHTS).items():
        first, second, third = (tensors[name].double() for tensors in held)
        expected = first + 0.25 * (second - first) - 0.25 * (third - first)
        np.testing.assert_allclose(value.numpy(), expected.numpy(), rtol=2**-23, atol=1e-14, err_msg=name)


def test_an_analogy_is_two_added_and_one_taken_away(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, one, two = models
    analogy = made(capsys, "task", base, "--analogy", one, two, base, "--scale", "0.5", "-o", tmp_path / "a")
    spelt = made(
        capsys, "task", base, "--add", base, "--add", two, "--negate", one, "--scale", "0.5", "-o", tmp_path / "b"
    )
    assert analogy["weights"] == spelt["weights"]
    assert {term["coefficient"] for term in analogy["terms"]} == {1.0, 0.5, -0.5}


def test_nothing_learned_is_nothing_changed(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = load(models[0]).identity.weights
    for number, flags in enumerate(
        (["--add", models[0]], ["--negate", models[0], "--scale", "0.3"], ["--add", models[1], "--negate", models[1]])
    ):
        assert made(capsys, "task", models[0], *flags, "-o", tmp_path / str(number))["weights"] == base
    assert made(capsys, "uniform", models[0], "-o", tmp_path / "one")["weights"] == base


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("uniform", "{0}"), 2, "missing option '-o'"),
        (("uniform", "-o", "out"), 2, "missing argument 'MODEL...'"),
        (("uniform", "{0}", "-o", "taken"), 2, "taken exists: a model is not written over what is there"),
        (("uniform", "{0}", "-o", "no/where"), 2, "no/where: there is no folder"),
        (("uniform", "{0}", "lite", "-o", "out"), 2, "lite has no weights that can be mixed"),
        (("uniform", "{0}", "nowhere/", "-o", "out"), 2, "no model folder nowhere/"),
        (("task", "{0}", "-o", "out"), 2, "there is no task vector"),
        (("task", "{0}", "--add", "{1}", "--scale", "nan", "-o", "out"), 2, "--scale takes a number, not nan"),
        (
            ("task", "{0}", "--add", "{1}", "--scale", "1e300", "-o", "out"),
            1,
            "ln_final.bias of the mixture is not finite",
        ),
        (
            ("task", "{0}", "--analogy", "{1}", "{2}", "-o", "out"),
            2,
            "--analogy takes three models, and 2 came before -o",
        ),
        (("uniform", "{0}", "-o", "-"), 2, "-o names a folder"),
    ],
)
def test_what_is_refused_leaves_nothing(
    args: tuple[str, ...], code: int, said: str, models: list[str], tmp_path: Path, in_process: InProcess
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    result = in_process("soup", *(arg.format(*models) for arg in args))
    assert result.code == code, result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert result.stderr.startswith(f"clipkit soup {args[0]}: {said}")
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}


def test_a_name_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["torch"] = sys.modules["open_clip"] = sys.modules["safetensors"] = None
from clipkit import cli
for args in (["uniform", "lite"], ["wise", "lite", "lite"], ["task", "lite", "--add", "lite"]):
    assert cli.run(["soup", *args, "-o", "out"]) == 2, args
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("lite has no weights that can be mixed") == 3


def test_a_full_disk_leaves_nothing(models: list[str], tmp_path: Path, in_process: InProcess) -> None:
    """No file may grow beyond 1 KiB: to a process it is as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, before[1]))  # Python ignores SIGXFSZ
    try:
        done = in_process("soup", "uniform", *models, "-o", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = "clipkit soup uniform: out cannot be written: no space left on the disk, or none for this user\n"
    assert (done.code, done.stdout, done.stderr) == (1, "", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("args", [("uniform", "{0}", "{1}"), ("wise", "{0}", "{1}"), ("task", "{0}", "--add", "{1}")])
def test_a_stop_leaves_nothing(
    args: tuple[str, ...],
    number: int,
    code: int,
    models: list[str],
    tmp_path: Path,
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes when a tensor is mixed, and the folder that is being made is there already."""
    rounded = mixing._rounded
    seen = []

    def stopped(name: str, total: torch.Tensor) -> torch.Tensor:
        seen.extend(path.name[:5] for path in tmp_path.iterdir())
        os.kill(os.getpid(), number)
        return rounded(name, total)

    monkeypatch.setattr(mixing, "_rounded", stopped)
    done = in_process("soup", *(arg.format(*models) for arg in args), "-o", "out")
    said = f"clipkit soup {args[0]}: stopped; nothing was written\n"
    assert (done.code, done.stdout, done.stderr, seen) == (code, "", said, [".out."])
    assert not list(tmp_path.iterdir())


def test_whoever_waits_sees_how_far_it_is(models: list[str], tmp_path: Path) -> None:
    """Each model as it is read, and how much of the mixture there is."""
    seen: list[str] = []

    class Heard(Voice):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            seen.extend([value] if name == "doing" else [])

    recipes.uniform(models, str(tmp_path / "soup"), Heard("soup uniform"))
    names = [f"soup-vit:{number}.safetensors" for number in range(3)]
    assert [said for said in seen if said.startswith("reading")] == [
        f"reading {name}, {number} of 3" for number, name in enumerate(names, start=1)
    ]
    assert seen[-2:] == ["mixing, 100%", "writing"]


def test_a_notice_is_said_once_and_not_when_quiet(
    models: list[str], in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an architecture that exists with both activations, when nothing says which the weights are of."""
    monkeypatch.setattr("clipkit.models.listing.twin", lambda arch: f"{arch}-quickgelu")
    told = in_process("soup", "uniform", models[0], models[0], "-o", "one")
    assert told.code == 0 and len(told.stderr.splitlines()) == 1
    assert told.stderr.startswith("clipkit soup uniform: nothing says what activation")
    assert in_process("soup", "uniform", models[0], "-q", "-o", "two").stderr == ""


def test_a_person_sees_lines() -> None:
    made = {"out": "soup", "model": "soup@0123", "terms": [{"coefficient": -0.5, "model": "run-1"}]}
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    with contextlib.redirect_stdout(shown):
        show(made, as_json=False)
    assert shown.getvalue() == "soup: the model soup@0123\n   -0.5000  run-1\n"
