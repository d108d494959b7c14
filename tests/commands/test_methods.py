"""What `clipkit methods` says of a method."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from clipkit import cli
from clipkit.errors import UsageError
from clipkit.methods import ADAPTERS, EXPORTERS, REGISTRIES
from clipkit.methods.adapters.base import Adapter


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.run(["methods", *args]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_a_card_says_all_that_the_class_does(capsys: pytest.CaptureFixture[str], name: str) -> None:
    method: type[Adapter] = ADAPTERS.get(name)
    shown = said(capsys, "adapters", name)
    assert shown.startswith(f"{name}  {ADAPTERS.entry(name).summary}\n")
    for text in (method.cost, method.citation, *method().params):
        assert text and text in shown


def test_values_on_a_card_are_as_a_person_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "adapters", "tip")
    assert "    alpha  weight on the votes (chosen on validation, 10 without any)\n" in shown
    assert "(true)" in said(capsys, "adapters", "linear")


def test_a_method_that_says_nothing_of_itself_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "dedupers", "url") == "url  Equal addresses, once normalised.\n"


def test_the_list_of_one_kind_says_what_each_needs(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "adapters")
    assert shown.count("needs: ") == shown.count("cost: ") == len(ADAPTERS.names())
    assert "needs: " not in said(capsys), "and that of all kinds stays short"
    assert shown.endswith("clipkit methods adapters clip-adapter\n")


def test_json_carries_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in said(capsys, "--json").splitlines()]
    assert [(line["kind"], line["name"]) for line in lines] == [
        (r.kind, n) for r in REGISTRIES.values() for n in r.names()
    ]
    one = json.loads(said(capsys, "adapters", "tip", "--json"))
    assert one in lines
    assert one["params"]["beta"] == {
        "said": "how fast a vote falls with distance",
        "default": "chosen on validation",
        "untuned": ADAPTERS.get("tip").describe()["params"]["beta"]["untuned"],
    }


def test_an_unknown_name_is_told_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["methods", "adapters", "tpi"]) == 2
    assert "there is no 'tpi' among the adapters\nhint: did you mean tip?" in capsys.readouterr().err


def test_saying_what_adapters_are_needs_no_torch() -> None:
    program = "import sys; from clipkit import cli; cli.run(['methods', 'adapters']); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "open_clip", "onnxruntime"} & set(done.stdout.split())


@pytest.mark.parametrize(("kind", "name"), [("losses", "hq-clip"), ("captioners", "coca")])
def test_what_the_class_says_of_itself_stands_above_its_parameters(
    capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    method = REGISTRIES[kind].get(name)
    words = " ".join(said(capsys, kind, name).split())
    assert " ".join((method.__doc__ or "").split()) in words
    assert "(None)" not in words


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ONNX", "did you mean onnx? see: clipkit methods exporters"),
        ("HF", "did you mean hf? see: clipkit methods exporters"),
        ("TorchExport", "did you mean torch.export? see: clipkit methods exporters"),
        ("f16", "did you mean fp16? see: clipkit methods exporters"),
        ("INT8", "that is a flag: --to onnx --int8"),
        ("tensorrt", f"there are {', '.join(EXPORTERS.names())}; see: clipkit methods exporters"),
    ],
)
def test_a_name_in_another_spelling_is_known_and_a_stranger_gets_the_list(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        EXPORTERS.entry(name)
    assert caught.value.hint == hint


def test_a_target_says_what_it_is_held_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "exporters").count("limits: least cosine ") == len(EXPORTERS.names())
    card = [line.split("  ")[-1] for line in said(capsys, "exporters", "onnx").splitlines() if "limits" in line]
    assert card == [
        "least cosine 0.9999, agreement 0.99",
        "least cosine 0.99, agreement 0.9",
        *["least cosine 0.97, agreement 0.85"] * 2,
    ]
