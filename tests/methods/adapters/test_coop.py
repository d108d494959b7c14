"""CoOp on tiny random models of open_clip: vectors in a prompt are its words, and only they are learned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.errors import UsageError
from clipkit.features.pictures import ImagePictures
from clipkit.images.opener import Opener
from clipkit.methods.adapters import files, selection
from clipkit.methods.adapters.coop import CoOp, _usual
from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.methods.adapters.finetune import watching
from clipkit.models.load import load
from tests.models import tiny

torch = pytest.importorskip("torch")

from clipkit.methods.adapters.prompting import Prompts  # noqa: E402

NAMES = ("cat", "tabby cat, really", "ein Löwe", "sea horse", "x")


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for each other take longer here than the work."""
    monkeypatch.setattr("clipkit.methods.adapters.prompting.available_cores", lambda: 1)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny encoder of an architecture, made once."""
    folder, made = tmp_path_factory.mktemp("models"), {}
    tiny.register(folder)

    def of(arch: str) -> Any:
        if arch not in made:
            made[arch] = load(f"{arch}:{tiny.save(tiny.make(arch), folder / f'{arch}.safetensors')}", device="cpu")
        return made[arch]

    return of


def task(encoder: Any, names: tuple[str, ...] = NAMES, seed: int = 0) -> Task:
    text = encoder.encode_texts([f"a photo of a {name}." for name in names])
    return Task(names, text, 20.0, encoder.logit_bias, encoder=encoder, seed=seed)


def samples(encoder: Any, shots: int, names: tuple[str, ...] = NAMES, seed: int = 0, spread: float = 0.5) -> Samples:
    """Unit features around a random direction of each class."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((len(NAMES), encoder.identity.dim))[[NAMES.index(name) for name in names]]
    labels = np.repeat(np.arange(len(names)), shots)
    rng = np.random.default_rng(seed + 1)
    rows = means[labels] + spread * rng.standard_normal((len(labels), encoder.identity.dim))
    named = [f"{seed}/{names[label]}/{number}" for number, label in enumerate(labels)]
    return Samples(task(encoder, names), labels, Features(unit(rows)), names=named)


@pytest.mark.parametrize("arch", tiny.FAMILIES)
@pytest.mark.parametrize("words", ["a photo of a", "a"])
def test_vectors_that_are_the_embeddings_of_words_give_what_the_words_give(
    encoders: Any, arch: str, words: str
) -> None:
    encoder = encoders(arch)
    prompts = Prompts(encoder, NAMES, words)
    assert prompts.initial is not None and prompts.initial.shape == (len(words.split()), prompts.width)
    expected = encoder.encode_texts([f"{words} {name}." for name in NAMES])
    np.testing.assert_allclose(prompts(prompts.initial).numpy(), expected, atol=1e-6)
    assert not np.allclose(prompts(torch.zeros_like(prompts.initial)).numpy(), expected, atol=1e-3)
    own = prompts.initial.repeat(len(NAMES), 1, 1)
    np.testing.assert_allclose(prompts(own).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-coca", "tiny-sigmoid"])
def test_a_name_in_the_middle(encoders: Any, arch: str) -> None:
    encoder = encoders(arch)
    prompts = Prompts(encoder, NAMES, "look the here quietly stands", middle=True)
    assert prompts.initial is not None
    expected = encoder.encode_texts([f"look the {name} here quietly stands." for name in NAMES])
    np.testing.assert_allclose(prompts(prompts.initial).numpy(), expected, atol=1e-6)


def test_what_no_prompt_has_is_not_computed_where_nothing_looks_at_it(encoders: Any) -> None:
    longest = max(encoders("tiny-vit").count_tokens([f"a photo of a {name}." for name in NAMES]))
    widths = {arch: Prompts(encoders(arch), NAMES, 4)._tokens.shape[1] for arch in tiny.FAMILIES}
    assert widths == dict.fromkeys(tiny.FAMILIES, longest) | {"tiny-coca": 76, "tiny-sigmoid": 64}


def test_more_classes_than_are_computed_at_once(encoders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = Prompts(encoders("tiny-vit"), NAMES, 3)
    gradients = []
    for at_once in (100, 2):
        monkeypatch.setattr("clipkit.methods.adapters.prompting._AT_ONCE", at_once)
        context = torch.full((3, prompts.width), 0.01, requires_grad=True)
        features = prompts(context)
        loss = (features * torch.linspace(0, 1, features.numel()).view(features.shape)).sum()
        loss.backward()
        gradients.append((features.detach().numpy(), context.grad.numpy()))
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], atol=1e-6)
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], rtol=1e-3, atol=1e-4)


def test_only_the_vectors_are_learned(encoders: Any) -> None:
    encoder = encoders("tiny-vit")
    before = {name: value.clone() for name, value in encoder.module().state_dict().items()}
    prompts = Prompts(encoder, NAMES, 2)
    context = torch.zeros(2, prompts.width, requires_grad=True)
    prompts(context).sum().backward()  # type: ignore[no-untyped-call]
    assert context.grad is not None and context.grad.abs().max() > 0
    assert not any(value.requires_grad for value in prompts._model.parameters())
    CoOp(length=2, epochs=2).fit(samples(encoder, 2))
    after = encoder.module().state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-coca", "tiny-vit-sigmoid"])
@pytest.mark.parametrize("csc", [False, True])
def test_the_loss_falls_and_the_state_is_its_features(encoders: Any, arch: str, csc: bool) -> None:
    encoder = encoders(arch)
    support = samples(encoder, 4)
    told: list[tuple[int, int]] = []
    with watching(lambda step, steps, loss: told.append((step, steps))):
        adapter = CoOp(length=4, csc=csc, epochs=12, lr=0.2).fit(support)
    assert told == [(step, 12) for step in range(1, 13)]
    first, last = adapter.facts_["loss"]
    assert last < first - 0.05
    assert adapter.state_["context"].shape == ((5, 4, 64) if csc else (4, 64))
    prompts = Prompts(encoder, NAMES, 4)
    text = prompts(torch.from_numpy(adapter.state_["context"])).numpy()
    np.testing.assert_allclose(adapter.state_["text"], text, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(adapter.state_["text"], axis=1), 1, atol=1e-6)
    expected = 20.0 * support.plain.joint.astype(float) @ text.astype(float).T + (encoder.logit_bias or 0.0)
    np.testing.assert_allclose(adapter.logits(support.plain), expected, atol=1e-4)
    head = adapter.fold()
    assert head is not None
    np.testing.assert_array_equal(head.logits(support.plain), adapter.logits(support.plain))
    adapter.blend = 0.0
    np.testing.assert_array_equal(adapter.logits(support.plain), support.task.zero_shot(support.plain))


def test_one_epoch_is_sgd_on_the_cross_entropy(encoders: Any) -> None:
    """Two epochs of one batch, against momentum, decay and schedule written out."""
    encoder = encoders("tiny-vit")
    support = samples(encoder, 2)
    adapter = CoOp(init="a photo of a", epochs=2, lr=0.1).fit(support)
    prompts = Prompts(encoder, NAMES, "a photo of a")
    assert prompts.initial is not None
    context, velocity = prompts.initial.clone(), torch.zeros_like(prompts.initial)
    rows, labels = torch.from_numpy(support.plain.joint), torch.from_numpy(support.labels)
    for rate in (1e-5, 0.1):
        free = context.clone().requires_grad_(True)
        logits = 20.0 * rows @ prompts(free).T
        loss = -torch.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels].mean()
        loss.backward()
        velocity = 0.9 * velocity + free.grad + 5e-4 * context
        context = context - rate * velocity
    np.testing.assert_allclose(adapter.state_["context"], context.numpy(), atol=1e-5)
    assert np.abs(adapter.state_["context"] - prompts.initial.numpy()).max() > 1e-3


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1e-5), (1, 2e-3), (2, 1e-3 * (1 + np.cos(np.pi / 50)))])
def test_the_schedule(epoch: int, rate: float) -> None:
    assert CoOp()._rate(epoch, 50) == pytest.approx(rate)
    assert CoOp()._rate(epoch, 50) > CoOp()._rate(49, 50) or epoch == 0


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (5, 200), (16, 200)])
def test_epochs_as_published(shots: int, epochs: int) -> None:
    assert _usual(shots) == epochs


def test_as_published_besides(encoders: Any) -> None:
    """Sixteen vectors around 0 by 0.02, names behind them, batches of 32."""
    published = {"length": 16, "init": None, "position": "end", "csc": False, "lr": 2e-3}
    assert CoOp().params.items() >= published.items()
    told: list[tuple[int, int]] = []
    with watching(lambda step, steps, loss: told.append((step, steps))):
        adapter = CoOp(epochs=1, lr=0.0).fit(samples(encoders("tiny-vit"), 7))
    assert told == [(1, 2), (2, 2)], "35 samples are two batches"
    context = adapter.state_["context"]
    assert abs(context.mean()) < 0.003 and context.std() == pytest.approx(0.02, rel=0.1)


def test_order_of_classes_and_samples(encoders: Any) -> None:
    encoder = encoders("tiny-vit")
    support = samples(encoder, 3)
    one = CoOp(length=4, epochs=3, lr=0.1).fit(support)
    turned = support.take(np.arange(len(support))[::-1].copy())
    other = CoOp(length=4, epochs=3, lr=0.1).fit(turned)
    assert np.array_equal(one.state_["context"], other.state_["context"])
    before = CoOp(length=4, epochs=1, lr=0.0).fit(support)
    backwards = CoOp(length=4, epochs=1, lr=0.0).fit(samples(encoder, 3, NAMES[::-1]))
    np.testing.assert_allclose(before.state_["text"], backwards.state_["text"][::-1], atol=1e-6)
    another = CoOp(length=4, epochs=1).fit(Samples(task(encoder, seed=1), support.labels, support.features))
    assert not np.allclose(another.state_["context"], before.state_["context"], atol=1e-3)


def test_validation_chooses_the_epoch_and_a_refit_keeps_it(encoders: Any) -> None:
    encoder = encoders("tiny-vit")
    support, validation = samples(encoder, 4), samples(encoder, 4, seed=5)
    adapter = CoOp(length=2, epochs=8, lr=0.3).fit(support, validation)
    last = adapter.chosen_["last"]
    assert adapter.chosen_["epochs"] == 8 and 0 < last <= 8
    accuracy = (adapter.logits(validation.plain).argmax(axis=1) == validation.labels).mean()
    assert adapter.facts_["validation_accuracy"] == pytest.approx(accuracy)
    again = CoOp(length=2, epochs=8, lr=0.3).fit(support, chosen=adapter.chosen_)
    assert np.array_equal(again.state_["context"], adapter.state_["context"])
    held, said = selection.fit(CoOp(length=2, lr=0.3, epochs=4), support)
    assert said.on == "held-out" and said.accuracy is not None and held.chosen_["epochs"] == 4


def test_saved_and_loaded_bit_for_bit(encoders: Any, tmp_path: Path) -> None:
    encoder = encoders("tiny-vit")
    support = samples(encoder, 1)
    adapter = CoOp(length=2, csc=True, epochs=2, position="middle").fit(support)
    files.save(tmp_path / "a", adapter, encoder.identity, {})
    loaded = files.load(tmp_path / "a").adapter
    assert loaded == adapter and loaded.state_.keys() == {"context", "text"}
    assert np.array_equal(loaded.logits(support.plain), adapter.logits(support.plain))
    assert loaded.attach(encoder) is encoder


def test_pictures_are_encoded_once_a_view_and_epochs_take_turns(encoders: Any, tmp_path: Path) -> None:
    from PIL import Image

    encoder, asked = encoders("tiny-vit"), []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(4)]

    class Counted(ImagePictures):
        def pixels(self, row: int, view: int = 0) -> np.ndarray:
            asked.append((row, view))
            return super().pixels(row, view)

    pictures = Counted(encoder, Opener(tmp_path), names, names)
    classes = task(encoder, NAMES[:2])
    support = Samples(classes, np.array([0, 0, 1, 1]), pictures=pictures, names=names)
    adapter = CoOp(length=2, epochs=5, crops=3).fit(support, support)
    assert adapter.facts_["views"] == 4
    assert sorted(asked) == sorted([(row, view) for row in range(4) for view in range(4)] + [(r, 0) for r in range(4)])
    asked.clear()
    plain = encoder.encode_images([ImagePictures.pixels(pictures, row) for row in range(4)])[0]
    same = CoOp(length=2, epochs=5, crops=3).fit(Samples(classes, support.labels, Features(plain), 1, pictures, names))
    assert {view for _, view in asked} == {1, 2, 3}, "the plain view's features were given"
    CoOp(length=2, epochs=5, crops=0).fit(Samples(classes, support.labels, Features(plain), 1, pictures, names))
    views = np.concatenate(
        [[plain[r], *(encoder.encode_images([pictures.pixels(r, v)])[0][0] for v in (1, 2, 3))] for r in range(4)]
    )
    given = CoOp(length=2, epochs=5).fit(Samples(classes, support.labels, Features(views), 4, None, names))
    assert np.array_equal(given.state_["context"], same.state_["context"])


def test_what_cannot_be_is_said(encoders: Any) -> None:
    encoder = encoders("tiny-sigmoid")
    long = ("cat", "many " * 60)
    with pytest.raises(UsageError, match=r"class 'many .* takes 7[0-9] tokens with 16 vectors, and .* reads 64"):
        CoOp(epochs=1).fit(samples_of(task(encoder, long)))
    with pytest.raises(UsageError, match="init is a text of 1 to 62 tokens"):
        CoOp(init=" ", epochs=1).fit(samples_of(task(encoder, ("cat", "dog"))))
    lite = load("lite")
    with pytest.raises(UsageError, match="through a model's text tower, and lite has none"):
        CoOp(epochs=1).fit(samples_of(task(lite, ("cat", "dog"))))


def samples_of(of: Task) -> Samples:
    return Samples(of, np.arange(len(of.classes)), Features(of.text), names=list(of.classes))


def test_it_is_described_without_torch() -> None:
    program = "import sys, clipkit.methods.adapters.coop as c; c.CoOp.describe(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
