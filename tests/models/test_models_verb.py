"""`clipkit models`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Runner


def test_a_list_with_lite_first(clipkit: Runner) -> None:
    done = clipkit("models")
    rows = [json.loads(line) for line in done.lines]
    assert rows[0] == {"id": "lite", "backend": "lite", "cached": True, "source": "the package"}
    assert len(rows) > 100
    assert "ViT-B-32:openai" not in {row["id"] for row in rows}, "its weights go with ViT-B-32-quickgelu"


def test_filters(clipkit: Runner) -> None:
    part, glob = clipkit("models", "siglip"), clipkit("models", "vit-?-32:LAION*")
    assert part.lines and all("siglip" in json.loads(line)["id"].lower() for line in part.lines)
    assert [json.loads(line)["id"] for line in glob.lines] == ["ViT-B-32:laion2b_e16", "ViT-B-32:laion2b_s34b_b79k"]


def test_what_is_cached(clipkit: Runner, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").touch()
    env = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    rows = {row["id"]: row["cached"] for row in map(json.loads, clipkit("models", "vit-b-32:laion", env=env).lines)}
    assert rows["ViT-B-32:laion2b_s34b_b79k"] is True and rows["ViT-B-32:laion2b_e16"] is False


def test_info(clipkit: Runner) -> None:
    shown = json.loads(clipkit("models", "info", "ViT-SO400M-14-SigLIP-384:webli").stdout)
    assert (shown["dim"], shown["context_length"], shown["logit_bias"]) == (1152, 64, True)
    assert shown["preprocess"]["size"] == [384, 384]
    assert shown["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert shown["source"] == "timm/ViT-SO400M-14-SigLIP-384" and shown["cached"] is False
    lite = json.loads(clipkit("models", "info", "lite").stdout)
    assert lite["backbone_dim"] > 0 and lite["preprocess"]["size"] == [224, 224]
    bare = json.loads(clipkit("models", "info", "RN50-quickgelu").stdout)
    assert bare["activation"] == "quickgelu" and "openai" in bare["tags"]


def test_mistakes(clipkit: Runner) -> None:
    for words, said in [
        (("info",), "info and a name"),
        (("laion", "ViT-B-32"), "info and a name"),
        (("info", "ViT-B-23"), "Did you mean ViT-B-32"),
    ]:
        done = clipkit("models", *words)
        assert done.code == 2
        assert said in done.stderr and "Traceback" not in done.stderr
    refused = clipkit("models", "info", "ViT-B-32:openai")
    assert refused.code == 1 and "give ViT-B-32-quickgelu:openai" in refused.stderr


def test_what_matches_nothing_is_no_output(clipkit: Runner) -> None:
    done = clipkit("models", "nothing-like-it")
    assert (done.code, done.stdout) == (0, "")
