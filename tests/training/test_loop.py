"""Steps: what is told of them, what stops them, precision, averages, and open_clip's own training beside ours."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from clipkit.methods import LOSSES
from clipkit.training.loader import Batch
from clipkit.training.loop import MAX_SCALE, NotFinite, Step, Trainer
from clipkit.training.precision import LossScale
from clipkit.training.settings import Settings
from clipkit.training.student import Student
from tests.training.students import batch, encoder


def trainer(arch: str = "small", loss: str = "clip", **settings: Any) -> Trainer:
    options = Settings(loss=loss, **{"lr": 0.01, "steps": 3, **settings})
    made = LOSSES.get(loss).from_settings({})
    return Trainer(Student(encoder(arch, made.bias), options, made), made, options)


def batches(one: Trainer, count: int = 3) -> list[Batch]:
    return [batch(one.student, double=False, seed=seed) for seed in range(count)]


def run(one: Trainer, given: list[Batch] | None = None, **options: Any) -> list[Step]:
    steps: list[Step] = []
    one.run(batches(one) if given is None else given, steps.append, **options)
    return steps


def test_steps_are_open_clips_own() -> None:
    """The loop that open_clip_train has, on the same model and batches, gives the same weights."""
    import open_clip

    mine = trainer(weight_decay=0.2, clip_norm=0.5, schedule="constant", epsilon=0.01)
    steps = run(mine)
    model: Any = encoder("small").module().train()
    loss = open_clip.ClipLoss()
    named = list(model.named_parameters())
    plain = [value for name, value in named if value.ndim < 2 or "bias" in name or "logit_scale" in name]
    others = [value for name, value in named if not (value.ndim < 2 or "bias" in name or "logit_scale" in name)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.2}]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=0.01)
    for step, shown in zip(steps, batches(mine), strict=True):
        adamw.zero_grad()
        image, text, scale = model(shown.pixels, shown.tokens[:, 0])
        value = loss(image, text, scale)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adamw.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_SCALE)
        assert step.loss == pytest.approx(float(value.detach()), abs=1e-5)
        assert step.norm == pytest.approx(float(norm), rel=1e-4)
        assert step.scale == pytest.approx(float(scale.detach()), rel=1e-6)
    for name, theirs in model.state_dict().items():
        torch.testing.assert_close(mine.weights()[name], theirs, rtol=0, atol=1e-5, msg=name)


def test_what_is_told() -> None:
    steps = run(trainer(warmup=2))
    assert [step.step for step in steps] == [1, 2, 3]
    assert [step.lr for step in steps] == pytest.approx([0.005, 0.01, 0.01])
    assert [step.last for step in steps] == [False, False, True]
    assert [step.after for step in steps] == [6, 6, 6]
    assert run(trainer(loss="coca", arch="small-coca"))[0].parts.keys() == {"contrastive", "caption"}


def test_the_same_again() -> None:
    torch.manual_seed(1)
    first = run(trainer("small-dropout", seed=5))
    torch.manual_seed(2)
    drawn = torch.get_rng_state()
    assert run(trainer("small-dropout", seed=5)) == first
    assert torch.equal(torch.get_rng_state(), drawn)  # left as it was found
    assert run(trainer("small-dropout", seed=6)) != first


def test_a_run_may_end_before_its_last_step() -> None:
    asked = iter([False, True])
    steps = run(trainer(), stop=lambda: next(asked))
    assert [(step.step, step.last) for step in steps] == [(1, False), (2, True)]


def test_the_scale_of_the_logits_ends_at_100() -> None:
    one = trainer(steps=1)
    one.student.model.logit_scale.data.fill_(8.0)
    run(one)
    assert float(one.student.model.logit_scale.detach()) == pytest.approx(math.log(100))


@pytest.mark.parametrize("settings", [{}, {"chunk": 4}, {"precision": "bf16"}, {"precision": "f16"}, {"ema": 0.5}])
def test_not_a_number_changes_nothing(settings: dict[str, Any]) -> None:
    one = trainer(**settings)
    given = batches(one)
    given[1].pixels[2, 0, 3, 3] = math.inf
    before: dict[str, torch.Tensor] = {}
    steps: list[Step] = []

    def hear(step: Step) -> None:
        steps.append(step)
        before.update({name: value.clone() for name, value in one.state().items()})

    with pytest.raises(NotFinite, match="in step 2, on n0, n1, n2 and 3 more") as raised:
        one.run(given, hear)
    assert (raised.value.step, raised.value.names) == (2, given[1].names)
    assert len(steps) == 1
    assert all(torch.equal(value, before[name]) for name, value in one.state().items())


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    one = trainer()
    weights = {name: value.clone() for name, value in one.weights().items()}
    one.student.model.visual.proj.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NotFinite, match="the gradient became nan in step 1"):
        run(one)
    assert all(torch.equal(value, weights[name]) for name, value in one.weights().items())


def test_lower_precision_is_close() -> None:
    f16 = trainer(precision="f16", lr=1e-3)
    f16.load(f16.state() | {"scale:factor": torch.tensor(256.0)})  # the first gradients are large
    exact, close, half = run(trainer(lr=1e-3)), run(trainer(precision="bf16", lr=1e-3)), run(f16)
    assert close[0].loss == pytest.approx(exact[0].loss, abs=0.05)
    assert close[0].loss != exact[0].loss
    for one, other in zip(exact, half, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=0.02)
        assert other.norm == pytest.approx(one.norm, rel=0.05)
        assert other.loss != one.loss
    assert {value.dtype for value in f16.weights().values()} == {torch.float32}


def test_an_overflow_in_f16_is_a_step_left_out() -> None:
    one = trainer(precision="f16")
    one.load(one.state() | {"scale:factor": torch.tensor(2.0**40)})
    weights = {name: value.clone() for name, value in one.weights().items()}
    (step,) = run(one, batches(one, 1))
    assert step.skipped
    assert math.isfinite(step.loss)
    assert not math.isfinite(step.norm)
    assert all(torch.equal(value, weights[name]) for name, value in one.weights().items())
    assert float(one.state()["scale:factor"]) == 2.0**39


def test_a_gradient_that_is_no_number_at_any_scale_ends_an_f16_run() -> None:
    one = trainer(precision="f16", steps=30)
    one.load(one.state() | {"scale:factor": torch.tensor(4.0)})
    one.student.model.visual.proj.register_hook(lambda gradient: gradient * math.nan)
    steps: list[Step] = []
    with pytest.raises(NotFinite, match="the gradient became nan in step 3"):
        one.run(batches(one, 1) * 30, steps.append)
    assert [step.skipped for step in steps] == [True, True]


def test_the_scale_of_f16() -> None:
    scale = LossScale("f16")
    for _ in range(1999):
        scale.update(False)
    scale.update(True)
    assert scale.factor == 2.0**15
    for _ in range(2000):
        scale.update(False)
    assert scale.factor == 2.0**16
    again = LossScale("f16")
    again.load(scale.state())
    assert again.factor == scale.factor
    assert LossScale("bf16").factor == 1


def test_an_average_is_what_is_saved() -> None:
    plain, averaged = trainer(steps=1), trainer(steps=1, ema=0.999)
    first = {name: value.clone() for name, value in plain.weights().items()}
    run(plain)
    run(averaged)
    for name, value in plain.weights().items():
        expected = first[name] + (value - first[name]) * (1 - 2 / 11)  # decay (1 + 1) / (10 + 1)
        torch.testing.assert_close(averaged.weights()[name], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(averaged.student.state()[name], value, rtol=0, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_it_learns(optimizer: Any) -> None:
    one = trainer(optimizer=optimizer, steps=25, lr=3e-3 if optimizer == "adamw" else 1e-3, betas=(0.9, 0.99))
    steps = run(one, batches(one, 1) * 25)
    assert steps[0].loss > 1.2
    assert steps[-1].loss < 0.6


def test_layer_decay_reaches_the_optimizer() -> None:
    one = trainer(layer_decay=1e-9, steps=1, weight_decay=0.0)
    before = {name: value.clone() for name, value in one.weights().items()}
    run(one)
    moved = {name: float((value - before[name]).abs().max()) for name, value in one.weights().items()}
    assert moved["visual.proj"] > 1e-3
    assert moved["visual.transformer.resblocks.1.mlp.c_fc.weight"] < 1e-9


def test_captions_that_a_loss_looks_for_in_vain() -> None:
    several, wrong = trainer(loss="hq-clip", steps=1), trainer(loss="hq-clip", steps=1)
    assert several.notices == []  # nothing was learned yet
    run(several)
    assert several.notices == []
    given = batches(wrong, 1)
    given[0].present[:, 1:] = False
    assert given[0].negatives_present is not None
    given[0].negatives_present[:] = False
    run(wrong, given)
    assert [notice.partition(":")[0] for notice in wrong.notices] == [
        "no picture had more than one caption to show",
        "no picture had a caption marked negative",
    ]
    clip = trainer(steps=1)
    run(clip)
    assert clip.notices == []
