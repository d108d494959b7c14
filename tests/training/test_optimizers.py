"""Lion against the paper's formula, groups against open_clip's training, layer decay, states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from clipkit.training import optimizers
from clipkit.training.optimizers import Lion, decays, grouped, shares
from clipkit.training.settings import Settings
from tests.models import tiny


def test_lion_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    lion = Lion([{"params": [weight]}], lr=0.1, betas=(0.5, 0.75), weight_decay=0.2)
    weight.grad = torch.tensor([3.0, -1.0, 0.0], dtype=torch.float64)
    lion.step()
    # m = 0: the signs are those of g; w - 0.1 (sign + 0.2 w); m = 0.25 g
    expected = torch.tensor([1 - 0.1 * (1 + 0.2), -2 - 0.1 * (-1 - 0.4), 0.5 - 0.1 * (0 + 0.1)], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(lion.state[weight]["momentum"], torch.tensor([0.75, -0.25, 0.0], dtype=torch.float64))
    weight.grad = torch.tensor([-0.5, -1.0, 2.0], dtype=torch.float64)
    lion.step()
    # 0.5 m + 0.5 g = [0.125, -0.625, 1]: the first gradient outweighs the second in the first weight
    expected = expected * (1 - 0.1 * 0.2) - 0.1 * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-15)
    momentum = torch.tensor([0.75 * 0.75 - 0.125, -0.75 * 0.25 - 0.25, 0.5], dtype=torch.float64)
    torch.testing.assert_close(lion.state[weight]["momentum"], momentum, rtol=0, atol=1e-15)


def test_lion_leaves_alone_what_has_no_gradient() -> None:
    weight = nn.Parameter(torch.ones(2))
    lion = Lion([{"params": [weight]}], lr=0.1, weight_decay=1.0)
    lion.step()
    assert weight.tolist() == [1, 1]
    assert not lion.state[weight]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    tiny.register(tmp_path_factory.mktemp("models"))
    return {family: open_clip.create_model(family) for family in tiny.FAMILIES}


def test_weight_decay_as_open_clip_has_it(models: dict[str, Any]) -> None:
    source = Path(open_clip.__file__).parent.parent / "open_clip_train" / "main.py"
    line = re.search(r"exclude = (lambda n, p: .+)", source.read_text())
    assert line is not None
    exclude = eval(line[1])  # the rule of the installed package
    for family, model in models.items():
        for name, parameter in model.named_parameters():
            assert decays(name, parameter) is not exclude(name, parameter), (family, name)


def test_groups_hold_each_parameter_once(models: dict[str, Any]) -> None:
    for model in models.values():
        parameters = dict(model.named_parameters())
        groups = grouped(parameters, 0.5, 0.1)
        held = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(map(id, parameters.values()))
        assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


def test_layer_decay(models: dict[str, Any]) -> None:
    found = shares(dict(models["tiny-vit"].named_parameters()), 0.5)
    expected = {
        "visual.conv1.weight": 0.125,
        "visual.class_embedding": 0.125,
        "visual.positional_embedding": 0.125,
        "visual.ln_pre.weight": 0.125,
        "visual.transformer.resblocks.0.attn.in_proj_weight": 0.25,
        "visual.transformer.resblocks.1.mlp.c_proj.bias": 0.5,
        "visual.ln_post.bias": 1,
        "visual.proj": 1,
        "token_embedding.weight": 0.125,
        "positional_embedding": 0.125,
        "transformer.resblocks.0.ln_1.weight": 0.25,
        "transformer.resblocks.1.attn.out_proj.weight": 0.5,
        "ln_final.weight": 1,
        "text_projection": 1,
        "logit_scale": 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert set(shares(found, 1.0).values()) == {1.0}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("tiny-resnet", {"visual.conv1.weight": 1 / 32, "visual.layer1.0.conv1.weight": 1 / 16}),
        ("tiny-resnet", {"visual.layer4.0.bn1.bias": 0.5, "visual.attnpool.positional_embedding": 1}),
        ("tiny-convnext", {"visual.head.proj.weight": 1, "visual.trunk.stem.0.weight": 2.0**-10}),
        ("tiny-convnext", {"visual.trunk.stages.3.downsample.1.weight": 0.25, "visual.trunk.head.norm.weight": 1}),
        ("tiny-coca", {"text_decoder.resblocks.0.attn.in_proj_weight": 1, "text.cls_emb": 0.125}),
        ("tiny-coca", {"text.transformer.resblocks.1.ln_1.weight": 0.5, "visual.attn_pool.query": 1}),
        ("tiny-sigmoid", {"visual.trunk.patch_embed.proj.weight": 2.0**-7, "visual.trunk.blocks.5.norm1.weight": 0.5}),
        ("tiny-sigmoid", {"visual.trunk.attn_pool.latent": 1, "logit_bias": 1, "text.text_projection.weight": 1}),
    ],
)
def test_layer_decay_of_other_towers(models: dict[str, Any], family: str, expected: dict[str, float]) -> None:
    found = shares(dict(models[family].named_parameters()), 0.5)
    assert {name: found[name] for name in expected} == expected


def test_layer_decay_of_transformers_towers() -> None:
    names = ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.weight", "encoder.layer.1.output.bias"]
    found = shares([*(f"text.transformer.{name}" for name in names), "text.proj.weight"], 0.1)
    assert [round(value, 6) for value in found.values()] == [0.001, 0.01, 0.1, 1]


@pytest.mark.parametrize("kind", ["adamw", "lion"])
def test_state_comes_back(kind: Any) -> None:
    settings = Settings(optimizer=kind, lr=0.01, betas=(0.9, 0.99))

    def parameters() -> dict[str, nn.Parameter]:
        torch.manual_seed(0)
        return {name: nn.Parameter(torch.randn(3, 4)) for name in ("a", "b", "never.used")}

    def step(held: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
        torch.manual_seed(number)
        for name in ("a", "b"):
            held[name].grad = torch.randn(3, 4)
        optimizer.step()

    first = parameters()
    optimizer = optimizers.make(first, settings)
    for number in range(3):
        step(first, optimizer, number)
    saved = load(save({name: value.contiguous() for name, value in optimizers.state(optimizer, first).items()}))
    second = parameters()
    for name, value in first.items():
        second[name].data.copy_(value.data)
    again = optimizers.make(second, settings)
    optimizers.load(again, second, saved)
    for number in range(3, 6):
        step(first, optimizer, number)
        step(second, again, number)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not again.state[second["never.used"]]


def test_a_state_of_another_model_is_refused() -> None:
    held = {"a": nn.Parameter(torch.ones(2, 2))}
    optimizer = optimizers.make(held, Settings())
    whole = {f"a/{key}": torch.zeros(2, 2) for key in ("exp_avg", "exp_avg_sq")} | {"a/step": torch.tensor(1.0)}
    optimizers.load(optimizer, held, whole)
    for wrong, said in (
        (whole | {"b/step": torch.tensor(1.0)}, "no b/step"),
        (whole | {"a/exp_avg": torch.zeros(2, 3)}, "state of a"),
        ({name: value for name, value in whole.items() if name != "a/step"}, "state of a"),
        ({"a/momentum": torch.zeros(2, 2)}, "no a/momentum"),
    ):
        with pytest.raises(ValueError, match=said):
            optimizers.load(optimizer, held, wrong)
