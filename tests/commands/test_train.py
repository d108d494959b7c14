"""clipkit train: runs from their beginning to their end, or to a stop, and from there on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clipkit.models.load import load
from clipkit.stream.sink import locked
from clipkit.training import checkpoints, session
from clipkit.training.loop import Trainer
from tests.training.pairs import paint, write
from tests.training.students import encoder

# A model that a step costs a few milliseconds of, from a folder: so it counts as trained, and says --lr itself.
MICRO = ["--model", "./micro/", "--lr", "2e-3", "--batch-size", "8"]
TRAIN = ["train", "pairs.jsonl", *MICRO]


@pytest.fixture(autouse=True)
def _one_core() -> Iterator[None]:
    """Torch with one thread: two that wait for each other on a busy machine cost more than they bring."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 pairs, and a small model whose weights are random."""
    made = tmp_path_factory.mktemp("train")
    write(made / "pairs.jsonl", paint(made))
    encoder("small-all-words").save_model(made / "micro")
    return made


@pytest.fixture
def here(folder: Path, tmp_path: Path) -> Path:
    """The same, to write to."""
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def metrics(run: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says, without the speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "samples_per_s"} for line in lines]


def weights(run: Path) -> bytes:
    return (run / "model/open_clip_model.safetensors").read_bytes()


def card(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "run.json").read_text())
    return loaded


def at_step(run: Path, step: int, act: Callable[[], None]) -> threading.Thread:
    """Do something once so many steps are logged."""

    def watch() -> None:
        path = run / "metrics.jsonl"
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if path.exists() and sum(b'"loss"' in line for line in path.read_bytes().splitlines()) >= step:
                act()
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_run_learns_and_open_clip_has_its_model(here: Path, in_process: Any) -> None:
    words = ["--steps", "150", "--eval", "pairs.jsonl", "--eval-every", "150", "--keep", "3", "-o", "run/"]
    done = in_process(*TRAIN, *words)
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["steps"] == 150 and said["samples"] == 1200 and said["failed"] == {}
    assert min(said["eval"]["image_to_text_r@1"], said["eval"]["text_to_image_r@1"]) > 0.5, "chance is 1 of 24"
    run = here / "run"
    lines = metrics(run)
    assert '"samples_per_s":' in (run / "metrics.jsonl").read_text().splitlines()[1]
    modes = {path.stat().st_mode & 0o777 for path in (run / "checkpoints/step-00000150").iterdir()}
    assert modes == {(run / "run.json").stat().st_mode & 0o777}, "who may read the one may read the other"
    assert [line["step"] for line in lines] == [0, *range(1, 151), 150]
    assert lines[0]["eval"]["image_to_text_r@1"] < 0.2 and lines[-1]["eval"] == said["eval"]
    assert lines[150]["loss"] == pytest.approx(said["loss"], abs=1e-6)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step-{step:08}" for step in (120, 135, 150)
    ]
    told = card(run)
    assert told["finished"] and told["loss"] == {"first": lines[1]["loss"], "last": lines[150]["loss"]}
    assert told["eval"] == said["eval"]
    assert told["best"]["step"] == 150 and told["data"]["pairs"] == 24 and told["settings"]["warmup"] == 15
    assert (run / "loss.svg").read_bytes().startswith(b"<?xml")

    ours = load(f"{run}/model/", device="cpu")
    assert ours.identity.digest == told["trained"]["digest"] != told["model"]["digest"]
    last = load(f"{run}/checkpoints/step-00000150/", device="cpu")
    assert last.identity.digest == ours.identity.digest
    named = load(f"small-all-words:{run}/model/open_clip_model.safetensors", device="cpu")
    assert named.identity.digest == ours.identity.digest
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{run}/model")
    with Image.open(here / "red-ring.png") as picture, torch.inference_mode():
        pixels = preprocess(picture.convert("RGB"))[None]
        image = theirs.eval().encode_image(pixels, normalize=True).numpy()
        text = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{run}/model")(["a ring"]), normalize=True)
    np.testing.assert_allclose(ours.encode_images(pixels.numpy())[0], image, atol=1e-6)
    np.testing.assert_allclose(ours.encode_texts(["a ring"]), text.numpy(), atol=1e-6)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(here: Path, in_process: Any) -> None:
    """Ctrl-C, a full disk and a second Ctrl-C on the way; with averaged weights and an optimizer that has state."""
    words = ["--steps", "40", "--ema", "0.9", "--mirror", "--area", "0.5", "--checkpoint-every", "15"]
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    write(here / "val.jsonl", [record | {"id": f"val/{record['id']}"} for record in records])
    words += ["--eval", "val.jsonl", "--eval-every", "20"]
    assert in_process(*TRAIN, *words, "-o", "whole/").code == 0
    run = here / "run"
    watcher = at_step(run, 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    stopped = in_process(*TRAIN, *words, "-o", "run/")
    watcher.join()
    assert stopped.code == 130 and stopped.stdout == ""
    assert stopped.stderr.startswith("clipkit train: stopped; go on with: ")
    (checkpoint,) = (run / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 8 <= step < 15
    assert metrics(run) == [line for line in metrics(here / "whole") if line["step"] <= step]
    assert not card(run)["finished"] and not (run / "model").exists()

    refused = in_process(*TRAIN, *words, "-o", "run/")
    assert refused.code == 1 and "--resume goes on with it" in refused.stderr

    with full_disk(1 << 20):
        full = in_process(*TRAIN, *words, "-o", "run/", "--resume")
    assert full.code == 1
    assert full.stderr.startswith("clipkit train: step-00000015 cannot be written: no space left")
    assert "Traceback" not in full.stderr and "--resume" in full.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == [checkpoint.name]

    (run / "checkpoints/.step-00000030.torn").mkdir()
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"step":16,"lo')
    done = in_process(*TRAIN, *words, "-o", "run/", "--resume")
    assert done.code == 0, done.stderr
    assert metrics(run) == metrics(here / "whole")
    assert weights(run) == weights(here / "whole")
    assert not list((run / "checkpoints").glob(".*"))
    assert card(run)["best"] == card(here / "whole")["best"]

    finished = in_process(*TRAIN, *words, "-o", "run/", "--resume")
    assert finished.code == 1 and "is finished" in finished.stderr
    assert in_process(*TRAIN, "--steps", "2", "-o", "run/", "--restart").code == 0
    assert [line["step"] for line in metrics(run)] == [1, 2]
    assert not (run / "checkpoints/step-00000040").exists()


class full_disk:  # noqa: N801 (used as a word)
    """While it is entered, no file grows beyond so many bytes."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.before[1]))

    def __exit__(self, *exc: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(here: Path, clipkit: Any) -> None:
    words = [*TRAIN, "--steps", "120", "--checkpoint-every", "10", "--optimizer", "lion", "--set", "local=false"]
    assert clipkit(*words, "-o", "whole/").code == 0
    command = [sys.executable, "-P", "-m", "clipkit", *words, "-o", "run/"]
    running = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    at_step(here / "run", 15, running.kill).join()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert not (here / "run/model").exists()
    done = clipkit(*words, "-o", "run/", "--resume")
    assert done.code == 0, done.stderr
    assert metrics(here / "run") == metrics(here / "whole")
    assert weights(here / "run") == weights(here / "whole")


def test_a_second_ctrl_c_stops_at_once(here: Path, in_process: Any) -> None:
    run = here / "run"

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = at_step(run, 5, twice)
    stopped = in_process(*TRAIN, "--steps", "100000", "-o", "run/")
    watcher.join()
    assert stopped.code == 130


def test_pictures_that_cannot_be_read_are_counted(here: Path, in_process: Any) -> None:
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    (here / "broken.png").write_bytes((here / "red-bar.png").read_bytes()[:60])
    records += [{"id": name, "image": f"{name}.png", "text": "a thing"} for name in ("broken", "missing")]
    records += [{"id": "textless", "image": "red-bar.png"}]
    write(here / "some.jsonl", records)
    words = ["train", "some.jsonl", *MICRO, "--epochs", "2"]
    done = in_process(*words, "-o", "run/")
    assert done.code == 3
    assert "2 pictures could not be used while training: " in done.stderr
    assert "27 read, 26 counted, 1 failed (missing-text 1)" in done.stderr
    said = json.loads(done.stdout)
    assert said["failed"] == {"image-broken": 1, "image-missing": 1}
    assert card(here / "run")["failed"]["ids"] == ["broken", "missing"]
    assert in_process(*words, "-o", "other/", "--lenient").code == 0


def test_a_loss_that_is_no_number_stops_and_says_on_what(here: Path, in_process: Any) -> None:
    done = in_process("train", "pairs.jsonl", "--model", "./micro/", "--lr", "1e30", "--warmup", "0", "-o", "run/")
    assert done.code == 1
    assert "became" in done.stderr and "run/nan.json" in done.stderr
    told = json.loads((here / "run/nan.json").read_text())
    assert told["step"] > 0 and set(told["ids"]) <= {
        json.loads(line)["id"] for line in (here / "pairs.jsonl").read_text().splitlines()
    }
    assert len(told["ids"]) == 24


def test_measuring_changes_nothing_and_splits_are_kept_apart(here: Path, in_process: Any) -> None:
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    for number, record in enumerate(records):
        record["split"] = ("train", "train", "val", "test")[number % 4]
        record["label"] = record["text"].split()[1]
    write(here / "split.jsonl", records)
    write(here / "train.jsonl", [record for record in records if record["split"] == "train"])
    words = [*MICRO, "--steps", "12"]
    done = in_process("train", "split.jsonl", *words, "--eval-every", "5", "-o", "measured/")
    assert done.code == 0, done.stderr
    assert in_process("train", "train.jsonl", *words, "-o", "plain/").code == 0
    measured = metrics(here / "measured")
    assert [line for line in measured if "loss" in line] == metrics(here / "plain")
    assert [line["step"] for line in measured if "eval" in line] == [0, 5, 10, 12]
    figures = json.loads(done.stdout)["eval"]
    assert figures["n"] == 6 and {"top1", "image_to_text_r@1", "text_to_image_r@5"} <= set(figures)
    assert weights(here / "measured") == weights(here / "plain")


def test_tensorboard_has_the_same_numbers(here: Path, in_process: Any) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = in_process(*TRAIN, "--steps", "3", "--log", "tensorboard", "--eval", "pairs.jsonl", "-o", "run/")
    assert done.code == 0, done.stderr
    events = EventAccumulator(str(here / "run/tensorboard"))
    events.Reload()
    losses = [line["loss"] for line in metrics(here / "run") if "loss" in line]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert len(events.Scalars("eval/image_to_text_r@1")) == 4


def test_shards_are_trained_on_in_place(here: Path, in_process: Any) -> None:
    assert in_process("pack", "pairs.jsonl", "-o", "packed", "--max-count", "10").code == 0
    words = ["train", "packed", *MICRO, "--steps", "6"]
    done = in_process(*words, "--eval", "pairs.jsonl", "-o", "run/")
    assert done.code == 0, done.stderr
    assert card(here / "run")["data"]["pairs"] == 24
    assert json.loads(done.stdout)["eval"]["n"] == 24
    assert in_process(*words, "-o", "again/").code == 0
    assert [line for line in metrics(here / "run") if "loss" in line] == metrics(here / "again")


def test_samples_that_are_not_for_training_are_no_failures(here: Path, in_process: Any) -> None:
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    write(here / "split.jsonl", [record | {"split": "val"} for record in records[:4]] + records[4:])
    assert in_process("pack", "split.jsonl", "-o", "packed").code == 0
    done = in_process("train", "packed", *MICRO, "--steps", "4", "-o", "run/")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == {} == card(here / "run")["failed"]["kinds"]
    assert "samples of the splits val and test were left out" in done.stderr


def test_only_so_many_failures_are_remembered(here: Path, in_process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (checkpoints, session):
        monkeypatch.setattr(module, "MOST_FAILED", 2)
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    write(here / "some.jsonl", records + [{"id": f"n{n}", "image": f"{n}.png", "text": "a thing"} for n in range(5)])
    done = in_process("train", "some.jsonl", *MICRO, "--epochs", "3", "-o", "run/")
    assert done.code == 3 and "2 pictures or more could not be used while training" in done.stderr
    assert json.loads(done.stdout)["failed"] == {"image-missing": 2}


def test_memory_that_is_not_enough_is_said_in_words(
    here: Path, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "run", full)
    done = in_process(*TRAIN, "--steps", "4", "-o", "run/")
    assert done.code == 1
    assert "8 pairs at once need more memory than cpu has" in done.stderr and "--chunk 2" in done.stderr


def test_pictures_without_captions_are_told_apart_from_no_pictures(here: Path, in_process: Any) -> None:
    write(here / "labels.jsonl", [{"id": name, "image": "red-bar.png", "label": "bar"} for name in "ab"])
    done = in_process("train", "labels.jsonl", *MICRO, "-o", "run/")
    assert done.code == 1 and "nothing to train on: missing-text 2" in done.stderr and "recaption" in done.stderr


def test_one_run_at_a_time_writes_to_a_folder(here: Path, in_process: Any) -> None:
    with locked(here / "run"):
        done = in_process(*TRAIN, "--steps", "4", "-o", "run/")
    assert done.code == 1 and f"another run (process {os.getpid()}) is writing" in done.stderr
    assert not (here / "run").exists()


def with_texts(here: Path, texts: Callable[[str], list[Any]]) -> None:
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    write(here / "texts.jsonl", [record | {"texts": texts(record["text"])} for record in records])


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["--texts", "original=1,coac=1"], "--texts coac: no record has a caption", "did you mean coca? there are: "),
        (["--texts", "foo=1"], "--texts foo: no record has a caption", "there are: coca, laclip, original"),
        (["--texts", "laclip/1=1,laclip/3=1"], "--texts laclip/3: ", "did you mean laclip/1? there are: "),
        (["--prefix", "lac=x"], "--prefix lac: no record has a caption", "coca, laclip, original"),
    ],
)
def test_a_source_of_captions_that_there_is_not(
    here: Path, in_process: Any, words: list[str], said: str, hint: str
) -> None:
    with_texts(here, lambda text: [text, {"text": f"{text} 1", "source": "laclip/1"}, {"text": "c", "source": "coca"}])
    done = in_process("train", "texts.jsonl", *MICRO, *words, "-o", "run/")
    assert done.code == 2 and said in done.stderr and hint in done.stderr, done.stderr
    assert not (here / "run").exists()


def test_sources_that_there_are(here: Path, in_process: Any) -> None:
    """Plain texts are the original, without which no record could be used here; the weight 0 is of no matter."""
    with_texts(here, lambda text: [text, {"text": f"{text} again", "source": "laclip/1", "model": "m@1"}])
    words = ["--steps", "3", "--texts", "original=1,veclip=0", "--prefix", "laclip=a rewrite:"]
    done = in_process("train", "texts.jsonl", *MICRO, *words, "-o", "run/")
    assert done.code == 0 and done.stderr == "", done.stderr


def test_what_a_loss_will_look_for_in_vain_is_said_before(here: Path, in_process: Any) -> None:
    words = [*MICRO, "--steps", "2", "--loss", "hq-clip"]
    done = in_process("train", "pairs.jsonl", *words, "-o", "run/")
    assert done.code == 0 and done.stderr.count("no picture ") == 2, done.stderr
    assert "no picture has more than one caption to show: hq-clip will learn" in done.stderr
    with_texts(here, lambda text: [text, {"text": f"{text} again"}, {"text": "no", "negative": True}])
    assert in_process("train", "texts.jsonl", *words, "-o", "other/").stderr == ""
    assert in_process("train", "pairs.jsonl", *words, "--quiet", "-o", "quiet/").stderr == ""


def test_records_that_are_trained_and_measured_on_are_counted(here: Path, in_process: Any) -> None:
    records = [json.loads(line) for line in (here / "pairs.jsonl").read_text().splitlines()]
    write(here / "half.jsonl", records[:12] + [record | {"id": f"not-{record['id']}"} for record in records[12:]])
    done = in_process(*TRAIN, "--steps", "1", "--eval", "half.jsonl", "-o", "run/")
    assert done.code == 0 and "12 of the records to measure on are trained on, too" in done.stderr


@pytest.mark.parametrize("other", [{"image": "cat"}, {"image": "cat.png", "text": "a cat"}])
def test_records_that_cannot_be_measured_are_refused_before_the_first_step(
    here: Path, in_process: Any, other: dict[str, Any]
) -> None:
    write(here / "val.jsonl", [{"id": "cat", **other}])
    done = in_process(*TRAIN, "--eval", "val.jsonl", "-o", "run/")
    kind = "image-missing" if "text" in other else "missing-text"
    assert done.code == 1 and "--eval" in done.stderr and kind in done.stderr, done.stderr
    assert not (here / "run").exists()


@pytest.fixture
def stopped(here: Path, in_process: Any) -> Path:
    """A run that was stopped."""
    run = here / "run"
    watcher = at_step(run, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert in_process(*TRAIN, "--steps", "300", "-o", "run/").code == 143
    watcher.join()
    return run


def test_a_run_that_failed_before_its_first_step_is_in_nobodys_way(here: Path, in_process: Any) -> None:
    """A forgotten --root; a loss that is no number in the first step; a kill before the first checkpoint."""
    (here / "list").mkdir()
    (here / "list/pairs.jsonl").write_bytes((here / "pairs.jsonl").read_bytes())
    words = ["train", "list/pairs.jsonl", *MICRO, "--steps", "2", "-o", "run/"]
    run = here / "run"
    done = in_process(*words, "--root", "list")
    assert done.code == 1 and "no example of a whole epoch can be used" in done.stderr
    assert not run.exists()
    run.mkdir()
    assert in_process(*words, "--root", "list").code == 1 and not list(run.iterdir())
    nan = in_process(*words, "--root", ".", "--lr", "1e38", "--warmup", "0", "--checkpoint-every", "2")
    assert nan.code == 1 and (run / "nan.json").exists(), nan.stderr
    (run / "checkpoints/.step-00000001").mkdir(exist_ok=True)
    (run / "mine.txt").touch()
    done = in_process(*words, "--root", ".")
    assert done.code == 0, done.stderr
    assert (run / "mine.txt").exists() and not (run / "nan.json").exists() and len(metrics(run)) == 2


def test_a_model_without_checkpoints_is_not_replaced(here: Path, in_process: Any) -> None:
    """Somebody removed them; run.json of a run that was killed as it ended says that it isn't finished."""
    words = [*TRAIN, "--steps", "1", "-o", "run/"]
    assert in_process(*words).code == 0
    shutil.rmtree(here / "run/checkpoints")
    assert "is finished" in in_process(*words).stderr
    (here / "run/run.json").write_text(json.dumps(card(here / "run") | {"finished": False}))
    assert "an unfinished run is in run" in in_process(*words).stderr
    assert (here / "run/model").is_dir()


def test_another_run_is_not_gone_on_with(stopped: Path, here: Path, in_process: Any) -> None:
    resumed = [*TRAIN, "--steps", "300", "-o", "run/", "--resume"]
    other = in_process(*resumed, "--batch-size", "12", "--seed", "3")
    assert other.code == 1
    assert "batch_size is 12, and was 8" in other.stderr and "seed is 3, and was 0" in other.stderr
    longer = in_process(*TRAIN, "--steps", "301", "-o", "run/", "--resume")
    assert longer.code == 1 and "steps is 301, and was 300" in longer.stderr
    assert "--model ./run/checkpoints/step-" in longer.stderr
    fewer = in_process(*resumed, "--limit", "20")
    assert fewer.code == 1 and "the pairs are other ones" in fewer.stderr
    before = sorted(path.name for path in stopped.rglob("*"))
    assert before == sorted(path.name for path in stopped.rglob("*")), "a refusal changes nothing"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda at: (at / "training.json").write_text("{"), "training.json"),
        (lambda at: (at / "training.json").unlink(), "training.json"),
        (lambda at: (at / "training.safetensors").write_bytes(b"\x80\x04pickled"), "training.safetensors"),
        (lambda at: save_file({"student:no": torch.zeros(2)}, at / "training.safetensors"), "does not fit"),
        (lambda at: save_file({"other": torch.zeros(2)}, at / "training.safetensors"), "does not fit"),
        (lambda at: _change(at, lambda said: said["reached"].update(positions=[])), "positions"),
        (lambda at: _change(at, lambda said: said["reached"].update(positions=[-5])), "positions"),
        (lambda at: _change(at, lambda said: said["reached"].update(positions=[1 << 63])), "positions"),
        (lambda at: _change(at, lambda said: said["reached"].update(step=10**6)), "steps"),
        (lambda at: _change(at, lambda said: said["reached"].update(best={"value": "high"})), "training.json"),
        (lambda at: _change(at, lambda said: said.update(format=9)), "format 9"),
        (lambda at: _reshape(at), "does not fit"),
    ],
)
def test_a_checkpoint_that_is_none(stopped: Path, in_process: Any, harm: Callable[[Path], Any], said: str) -> None:
    (checkpoint,) = (stopped / "checkpoints").iterdir()
    harm(checkpoint)
    done = in_process(*TRAIN, "--steps", "300", "-o", "run/", "--resume")
    assert done.code == 1
    first, *rest = done.stderr.splitlines()
    assert first.startswith("clipkit train: ") and said in first
    assert all(line.startswith("hint: ") for line in rest)


def test_a_run_is_not_begun_anew_over_its_own_beginning(stopped: Path, here: Path, in_process: Any) -> None:
    (checkpoint,) = (stopped / "checkpoints").iterdir()
    shutil.copytree(checkpoint, stopped / "model")
    for model in (
        f"./run/checkpoints/{checkpoint.name}/",
        f"tiny-ViT-64:{checkpoint}/open_clip_model.safetensors",
        "./run/",
        "run/model/",
    ):
        done = in_process("train", "pairs.jsonl", "--model", model, "--steps", "3", "-o", "run/", "--restart")
        assert done.code == 2 and "which --model begins with" in done.stderr
    assert checkpoint.is_dir()


def _change(at: Path, change: Callable[[dict[str, Any]], None]) -> None:
    said = json.loads((at / "training.json").read_text())
    change(said)
    (at / "training.json").write_text(json.dumps(said))


def _reshape(at: Path) -> None:
    held = load_file(at / "training.safetensors")
    name = next(name for name in held if name.startswith("optimizer:") and held[name].ndim == 2)
    save_file(held | {name: held[name][:1].clone()}, at / "training.safetensors")


REFUSED = [
    ([], 2, "where is the run to be written?"),
    (["-o", "run/", "--steps", "3", "--epochs", "2"], 2, "--steps and --epochs both say how long"),
    (["-o", "run/", "--lock-image", "--lock-text"], 2, "leave nothing to train"),
    (["-o", "run/", "--ema", "1"], 2, "--ema 1: a decay lies between 0 and 1"),
    (["-o", "run/", "--loss", "clap"], 2, "clap"),
    (["-o", "run/", "--set", "temperature=2"], 2, "clip has no parameter 'temperature'"),
    (["-o", "run/", "--texts", "original"], 2, "--texts takes SOURCE=WEIGHT"),
    (["-o", "run/", "--texts", "original=0"], 2, "every weight is 0"),
    (["-o", "run/", "--prefix", "coca"], 2, "--prefix takes SOURCE=WORDS"),
    (["-o", "run/", "--batch-size", "25"], 1, "there are 24 pairs: less than one batch of 25"),
    (["-o", "run/", "--steps", "5", "--warmup", "5"], 2, "--warmup 5: the run has 5 steps"),
    (["-o", "run/", "--batch-size", "8", "--chunk", "9"], 2, "--chunk 9 is more than a batch of 8"),
    (["-o", "run/", "--chunk", "32"], 2, "--chunk 32 is more than a batch of 24"),
    (["-o", "run/", "--limit", "1"], 1, "one pair"),
    (["-o", "run/", "--limit", "0"], 1, "there is nothing to train on"),
    (["-o", "run/", "--shard", "1/2"], 2, "--shard"),
    (["-o", "run/", "--retry-failed"], 2, "--retry-failed"),
    (["-o", "no/such/run/"], 2, "there is no folder"),
    (["-o", "red-bar.png"], 2, "is a file"),
    (["-o", "micro"], 2, "is no run of clipkit train"),
    (["-o", "micro", "--restart"], 2, "is no run of clipkit train"),
]


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=[" ".join(words) for words, _, _ in REFUSED])
def test_refusals(here: Path, in_process: Any, words: list[str], code: int, said: str) -> None:
    done = in_process("train", "pairs.jsonl", "--model", "./micro/", *words)
    first, *rest = done.stderr.splitlines()
    assert (done.code, done.stdout) == (code, ""), done.stderr
    assert first.startswith("clipkit train: ") and said in first
    assert all(line.startswith("hint: ") for line in rest)
    assert not (here / "run").exists()


@pytest.mark.parametrize("model", ["lite", "tiny-ViT-65", "ViT-B-32:nope"])
def test_models_that_cannot_be_trained(here: Path, in_process: Any, model: str) -> None:
    done = in_process("train", "pairs.jsonl", "--model", model, "-o", "run/")
    assert done.code == 2 and not (here / "run").exists()


def test_a_bare_architecture_has_nothing_to_lock(here: Path, in_process: Any) -> None:
    done = in_process("train", "pairs.jsonl", "--model", "tiny-ViT-64", "--lora", "4", "-o", "run/")
    assert done.code == 2 and "--lora keeps weights as they are" in done.stderr
