"""A mixture is the sum that it says, whatever the files are, the pieces they are read in, and the coefficients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from clipkit.errors import ClipkitError
from clipkit.soups import mixing
from clipkit.soups.mixing import mix
from clipkit.soups.recipes import gathered, task_terms, uniform_terms
from clipkit.soups.states import State, state
from tests.soups import small


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    small.register(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[State]:
    return small.states(tmp_path_factory.mktemp("models"), 4)


def mixed(terms: mixing.Terms) -> dict[str, torch.Tensor]:
    return dict(mix(terms))


def same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    """Bit for bit: -0 is not 0."""
    return found.keys() == expected.keys() and all(
        value.dtype == expected[name].dtype and value.numpy().tobytes() == expected[name].numpy().tobytes()
        for name, value in found.items()
    )


def read(one: State) -> dict[str, torch.Tensor]:
    with one.open() as tensors:
        return {name: tensor.clone() for name, tensor in tensors.items()}


def summed(terms: mixing.Terms) -> dict[str, np.ndarray]:
    """By its definition, with all models in memory."""
    held = [(coefficient, small.arrays(one)) for coefficient, one in terms]
    return {name: sum(coefficient * tensors[name] for coefficient, tensors in held) for name in held[0][1]}


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=4))
@settings(max_examples=40)
def test_is_the_weighted_sum(models: list[State], coefficients: list[float]) -> None:
    terms = list(zip(coefficients, models, strict=False))
    found, expected = mixed(terms), summed(terms)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=2**-24, atol=1e-14, err_msg=name)


def test_the_scale_of_the_logits_is_mixed_as_any_parameter(models: list[State]) -> None:
    scales = [float(small.arrays(one)["logit_scale"]) for one in models]
    assert len(set(scales)) == len(models)
    assert float(mixed(uniform_terms(models))["logit_scale"]) == pytest.approx(np.mean(scales), rel=1e-7)


@pytest.mark.parametrize("piece", [1, 100, 5000])
def test_the_pieces_change_nothing(models: list[State], piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = uniform_terms(models)
    expected = mixed(terms)
    monkeypatch.setattr(mixing, "PIECE", piece)
    monkeypatch.setattr(mixing, "_BLOCK", 7)
    assert same(mixed(terms), expected)


def test_one_file_is_open_at_a_time(models: list[State], monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit.models.weights_file import OpenWeights

    depth: list[int] = []
    enter, leave = OpenWeights.__enter__, OpenWeights.__exit__
    now = 0

    def entered(self: OpenWeights) -> OpenWeights:
        nonlocal now
        now += 1
        depth.append(now)
        return enter(self)

    def left(self: OpenWeights, *caught: object) -> None:
        nonlocal now
        now -= 1
        leave(self, *caught)

    terms = uniform_terms(models)
    monkeypatch.setattr(mixing, "PIECE", 1000)
    monkeypatch.setattr(OpenWeights, "__enter__", entered)
    monkeypatch.setattr(OpenWeights, "__exit__", left)
    mixed(terms)
    assert len(depth) > 2 * len(models)
    assert set(depth) == {1}


def test_a_soup_of_one_is_that_model(models: list[State]) -> None:
    for one in models[:2]:
        assert same(mixed(uniform_terms([one])), read(one))


def test_a_soup_of_the_same_is_that_model(models: list[State]) -> None:
    assert same(mixed(uniform_terms([models[0]] * 3)), read(models[0]))
    third = 1 / 3  # also where nobody adds up what is equal: f64 errs by less than half of what f32 can tell
    assert same(mixed([(third, models[0])] * 3), read(models[0]))


@given(st.permutations(range(4)))
@settings(max_examples=10)
def test_the_order_of_a_uniform_soup_changes_no_bit(models: list[State], order: list[int]) -> None:
    assert same(mixed(uniform_terms([models[number] for number in order])), mixed(uniform_terms(models)))


@given(st.floats(-8, 8))
@settings(max_examples=20)
def test_a_task_vector_of_a_model_against_itself_is_nothing(models: list[State], scale: float) -> None:
    base = models[0]
    assert task_terms(base, [base], [], scale) == [(1.0, base)]
    assert task_terms(base, [], [base, base], scale) == [(1.0, base)]
    assert same(mixed(task_terms(base, [base], [], scale)), read(base))


@given(st.floats(-8, 8))
@settings(max_examples=20)
def test_what_is_added_and_taken_away_is_not_there(models: list[State], scale: float) -> None:
    base, *others = models
    assert task_terms(base, others, others[::-1], scale) == [(1.0, base)]


def test_a_vector_added_in_full_gives_its_model(models: list[State]) -> None:
    base, tuned = models[:2]
    assert same(mixed(task_terms(base, [tuned], [], 1.0)), read(tuned))
    assert same(mixed(task_terms(base, [tuned], [], 0.0)), read(base))


@given(st.floats(-3, 3))
@settings(max_examples=10)
def test_task_vectors_by_their_definition(models: list[State], scale: float) -> None:
    base, one, two, three = (small.arrays(model) for model in models)
    found = mixed(task_terms(models[0], models[1:3], models[3:], scale))
    for name, value in found.items():
        vector = (one[name] - base[name]) + (two[name] - base[name]) - (three[name] - base[name])
        np.testing.assert_allclose(value.numpy(), base[name] + scale * vector, rtol=2**-23, atol=1e-13, err_msg=name)


def test_an_analogy_by_its_definition(models: list[State]) -> None:
    base, a, b, c = (small.arrays(model) for model in models)
    found = mixed(task_terms(models[0], models[2:], models[1:2], 0.7))
    for name, value in found.items():
        vector = (c[name] - base[name]) + ((b[name] - base[name]) - (a[name] - base[name]))
        np.testing.assert_allclose(value.numpy(), base[name] + 0.7 * vector, rtol=2**-23, atol=1e-13, err_msg=name)


def test_what_was_not_tuned_stays_bit_for_bit(models: list[State], tmp_path: Path) -> None:
    """A locked tower is the same in both models, and so in every point between and beyond them."""
    base = read(models[0])
    held = {name: value for name, value in base.items() if name.startswith("visual.")}
    tuned = {**read(models[1]), **held}
    save_file(tuned, tmp_path / "tuned.safetensors")
    other = state(f"soup-vit:{tmp_path / 'tuned.safetensors'}")
    for scale in (0.1, 1 / 3, 0.9, 1.7):
        found = mixed(task_terms(models[0], [other], [], scale))
        assert all(torch.equal(found[name], value) for name, value in held.items())


def test_coefficients_of_equal_weights_are_added_exactly(models: list[State], tmp_path: Path) -> None:
    from fractions import Fraction

    save_file(read(models[0]), tmp_path / "copy.safetensors")
    copy = state(f"soup-vit:{tmp_path / 'copy.safetensors'}")
    tenth = Fraction(0.1)
    assert gathered([(tenth, models[0]), (tenth, copy), (-2 * tenth, models[0]), (Fraction(1), models[1])]) == [
        (1.0, models[1])
    ]


def test_what_a_batch_norm_has_seen_is_mixed_and_its_count_is_the_firsts(tmp_path: Path) -> None:
    models = small.states(tmp_path / "resnets", 3, "soup-resnet")
    terms = [(0.5, models[2]), (0.5, models[1])]
    found, expected = mixed(terms), summed(terms)
    counts = [name for name in found if name.endswith("num_batches_tracked")]
    assert counts and all(found[name].dtype == torch.int64 and int(found[name]) == 2 for name in counts)
    variances = [name for name in found if name.endswith("running_var")]
    assert variances
    for name in variances:
        np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=2**-23)
    with pytest.raises(ClipkitError, match=r"running_var of the mixture has variances below 0"):
        mixed(task_terms(models[0], [], models[1:], 3.0))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused_by_file_and_tensor(
    models: list[State], wrong: float, tmp_path: Path
) -> None:
    broken = read(models[0])
    broken["ln_final.bias"][3] = wrong
    save_file(broken, tmp_path / "broken.safetensors")
    given = f"soup-vit:{tmp_path / 'broken.safetensors'}"
    with pytest.raises(ClipkitError) as caught:
        mixed(uniform_terms([models[0], state(given)]))
    assert given in str(caught.value) and "ln_final.bias" in str(caught.value)


def test_a_sum_beyond_f32_is_refused(models: list[State]) -> None:
    with pytest.raises(ClipkitError, match="of the mixture is not finite"):
        mixed([(1e300, models[0])])


def test_half_precision_is_mixed_as_it_is_run_in_f32(models: list[State], tmp_path: Path) -> None:
    held = {name: value.half() for name, value in read(models[0]).items()}
    save_file(held, tmp_path / "half.safetensors")
    half = state(f"soup-vit:{tmp_path / 'half.safetensors'}")
    found = mixed(uniform_terms([half]))
    assert same(found, {name: value.float() for name, value in held.items()})
    assert load_file(half.outline.source.weights)["logit_scale"].dtype == torch.float16
