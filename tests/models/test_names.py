"""The grammar of model names, and what is said of names that are none. Nothing here may import torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipkit.errors import ClipkitError, UsageError
from clipkit.models import listing
from clipkit.models.names import again, parse


def test_forms(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    exported, layout = tmp_path / "exported", tmp_path / "layout"
    for folder, manifest in ((exported, "clipkit.json"), (layout, "open_clip_config.json")):
        folder.mkdir()
        (folder / manifest).write_text("{}")
    assert parse("lite").kind == "lite"
    assert (parse("ViT-B-32:laion2b-S34B-b79k").kind, parse("ViT-B-32:laion2b-S34B-b79k").tag) == (
        "tag",
        "laion2b_s34b_b79k",
    )
    assert parse("hf-hub:laion/CLIP-x").repository == "laion/CLIP-x"
    assert parse(f"ViT-B-32:{tmp_path}/a.pt").kind == "checkpoint"
    assert parse(str(exported)).kind == "exported"
    assert parse(str(layout)).kind == "folder"


def test_identities_hold_no_folders(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    assert parse(f"ViT-B-32:{tmp_path}/a.pt").shown == "ViT-B-32:a.pt"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("ViT-B-32", "which weights", "ViT-B-32:laion2b_s34b_b79k"),
        ("ViT-B-32:laion2b", "no tag 'laion2b'", "Did you mean ViT-B-32:laion2b_e16"),
        ("vit-b-32:openai", "no architecture 'vit-b-32'", "Did you mean ViT-B-32"),
        ("zzz:openai", "no architecture 'zzz'", "clipkit models"),
        ("litte", "no model 'litte'", "Did you mean lite"),
        ("ViT-B/32", "no model folder", "Did you mean ViT-B-32"),
        ("hf-hub:laion", "names no repository", "hf-hub:ORG/NAME"),
        ("hf-hub:a/../b", "names no repository", "hf-hub:ORG/NAME"),
        ("ViT-B-32:./none.pt", "no checkpoint ./none.pt", None),
        ("MobileCLIP-B:", "no tag ''", "datacompdr"),
        ("", "no model is named", "ARCH:TAG"),
    ],
)
def test_names_that_are_none(name: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(name)
    assert message in caught.value.message
    assert hint is None or hint in str(caught.value.hint)


def test_files_and_folders_that_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "model").mkdir()
    for name, hint in [
        ("./weights.pt", "ViT-B-32:./weights.pt"),
        ("./model", "see `clipkit models`"),
        ("model", "give ./model"),
    ]:
        with pytest.raises(UsageError) as caught:
            parse(name)
        assert hint in str(caught.value.hint)
    with pytest.raises(UsageError, match="not a checkpoint"):
        parse("ViT-B-32:./notes.txt")
    with pytest.raises(UsageError, match="not a file"):
        parse("ViT-B-32:./model")


def test_a_run_stands_for_its_model_which_is_called_as_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All models that `clipkit train` writes lie in a folder `model`: that name would tell nothing."""
    for folder in (tmp_path / "run0" / "model", tmp_path / "run0" / "checkpoints" / "step-00000010", tmp_path / "mine"):
        folder.mkdir(parents=True)
        (folder / "open_clip_config.json").write_text("{}")
    (tmp_path / "run0" / "run.json").write_text('{"verb": "train"}')
    monkeypatch.chdir(tmp_path)
    named = {
        "run0/": "run0",
        "./run0/model": "run0",
        f"{tmp_path}/run0/checkpoints/step-00000010/": "run0/step-00000010",
        "./mine/": "mine",
    }
    assert {given: parse(given).shown for given in named} == named
    assert parse("run0/").path.resolve() == tmp_path / "run0" / "model"
    monkeypatch.chdir(tmp_path / "run0" / "model")
    assert parse("./").shown == "run0"


def test_a_folder_that_is_something_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints" / "step-00000010").mkdir(parents=True)
    for made, file, said, hint in [
        ("run", "run.json", "is a run that has not ended", "checkpoints/step-00000010/"),
        ("young", "run.json", "is a run that has not ended", "--resume"),
        ("adapter", "adapter.json", "is an adapter, not a model", "clipkit fold-adapter ./adapter/"),
        ("hf", "config.json", "as transformers stores it, which clipkit doesn't read", "that it was made from"),
    ]:
        (tmp_path / made).mkdir(exist_ok=True)
        (tmp_path / made / file).write_text("{}")
        with pytest.raises(UsageError) as caught:
            parse(f"./{made}/")
        assert said in caught.value.message
        assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("shown", "given"),
    [
        ("lite", "lite"),
        ("hf-hub:org/name", "hf-hub:org/name"),
        ("run0", "PATH/TO/run0"),
        ("tiny-ViT-64:mine.safetensors", "tiny-ViT-64:PATH/TO/mine.safetensors"),
    ],
)
def test_how_a_model_is_given_again(shown: str, given: str) -> None:
    """A hint that says `--model run0` cannot be followed: of a folder only its name is known."""
    assert again(shown) == given


def test_a_bare_architecture_lists_only_weights_that_would_load() -> None:
    with pytest.raises(UsageError) as caught:
        parse("ViT-B-32")
    assert "ViT-B-32:openai" not in str(caught.value.hint)


def test_a_typo_costs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from clipkit.errors import UsageError\nfrom clipkit.models.load import load\n"
        "try: load('ViT-B-32:openia')\nexcept UsageError as error: print(error.hint)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "ViT-B-32:openai" in done.stdout


def test_the_list_is_open_clips() -> None:
    import open_clip

    ours = [(arch, tag) for arch, entries in listing.pretrained().items() for tag in entries]
    assert ours == open_clip.list_pretrained()
    assert set(listing.architectures()) <= set(open_clip.list_models())
    for arch, tag in ours:
        assert listing.pretrained()[arch][tag] == open_clip.get_pretrained_cfg(arch, tag)


def test_every_published_name_can_be_asked_for() -> None:
    """Each pair that is listed passes the activation guard, and no published weights are lost to it."""
    from clipkit.models.describe import available, describe

    rows = [row for row in available() if row["backend"] == "open_clip" and row["id"] not in listing.tiny()]
    for row in rows:
        assert describe(row["id"])["dim"] > 0
    everywhere = {
        listing.weights_file(entry) for entries in listing.pretrained().values() for entry in entries.values()
    }
    listed = {
        listing.weights_file(listing.pretrained()[arch][tag])
        for arch, _, tag in (row["id"].partition(":") for row in rows)
    }
    assert listed == everywhere


def test_weights_trained_with_the_other_activation_are_refused_by_name() -> None:
    from clipkit.models.load import load

    with pytest.raises(ClipkitError) as caught:
        load("ViT-B-32:openai")
    assert "trained with QuickGELU" in caught.value.message
    assert caught.value.hint == "give ViT-B-32-quickgelu:openai"


def test_what_is_cached_is_found_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = listing.pretrained()["ViT-B-32"]["laion2b_s34b_b79k"]
    assert listing.cached(entry) is None
    snapshot = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_pytorch_model.bin").touch()
    assert listing.cached(entry) == snapshot / "open_clip_pytorch_model.bin"
    (snapshot / "open_clip_model.safetensors").touch()
    assert listing.cached(entry) == snapshot / "open_clip_model.safetensors"


@pytest.mark.parametrize("name", ["ViT-B-32:laion2b_s34b_b79k", "hf-hub:laion/none"])
def test_without_a_network_one_line_says_what_to_do(name: str) -> None:
    from clipkit.models.load import load

    with pytest.raises(ClipkitError) as caught:
        load(name)
    assert "not on this machine" in caught.value.message and "\n" not in caught.value.message
    assert "hf download laion/" in str(caught.value.hint) and "ARCH:path/to/checkpoint" in str(caught.value.hint)


def test_without_open_clip_there_is_lite(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit.errors import MissingPackage
    from clipkit.models.describe import available

    listing.package.cache_clear()
    monkeypatch.setattr(listing, "find_spec", lambda name: None)
    assert [row["id"] for row in available()] == ["lite"]
    with pytest.raises(UsageError) as caught:
        parse("litte")
    assert "Did you mean lite" in str(caught.value.hint)
    with pytest.raises(MissingPackage, match="the model ViT-B-32 needs the package open_clip_torch"):
        parse("ViT-B-32:openai")
