"""OUT appears when it is whole and true, or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting import measuring, running
from clipkit.exporting.base import Job, Limits, Target, Wish, Written
from clipkit.exporting.running import Export, NotTrue, export
from clipkit.exporting.samples import Samples, carried
from clipkit.methods import EXPORTERS
from clipkit.models.base import Encoder
from clipkit.models.load import load
from clipkit.registry import Entry

WISH = Wish(towers=("image",))


class Toy(Target):
    """lite itself, said to be an export; a test makes it wrong."""

    spoil: ClassVar[Callable[[Encoder], None]] = staticmethod(lambda encoder: None)
    on_write: ClassVar[Callable[[Job], None]] = staticmethod(lambda job: None)

    def write(self, job: Job) -> Written:
        (job.folder / "network.bin").write_bytes(b"x" * 1000)
        Toy.on_write(job)
        return Written(precision="toy", facts={"opset": 7})

    def open(self, folder: Path) -> Encoder:
        encoder = load("lite")
        Toy.spoil(encoder)
        return encoder


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS._own, "toy", Entry("toy", f"{__name__}:Toy", "For tests."))
    monkeypatch.setattr(measuring, "_ALONE", 1)  # nobody looks at times here
    monkeypatch.setattr(EXPORTERS, "get", lambda name: Toy if name == "toy" else type(EXPORTERS).get(EXPORTERS, name))


@pytest.fixture(scope="module")
def few() -> Samples:
    whole = carried()
    return replace(whole, pictures=whole.pictures[::12], texts=whole.texts[:12])


@pytest.fixture
def asked(tmp_path: Path, few: Samples) -> Export:
    return Export(model="lite", target="toy", wish=WISH, out=str(tmp_path / "out"), samples=lambda: few, isolate=False)


def turn(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """The export's image features are off by an angle, and as long as before."""

    def spoil(encoder: Any) -> None:
        run = encoder.encode_images

        def encode_images(batch: Any, **more: Any) -> Any:
            joint, behind = run(batch, **more)
            aside = np.roll(joint, 1, axis=1) * np.where(np.arange(joint.shape[1]) % 2, 1, -1)
            turned = joint + by * aside
            return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32), behind

        encoder.encode_images = encode_images

    monkeypatch.setattr(Toy, "spoil", staticmethod(spoil))


def left(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path))


def test_a_true_one_appears_with_its_report(asked: Export, tmp_path: Path) -> None:
    found = export(asked)
    assert left(tmp_path) == ["out"]
    assert json.loads((tmp_path / "out/parity.json").read_text()) == found
    assert found["passed"] and found["format"] == 1 and found["kind"] == "parity"
    assert found["samples"] == {"name": "carried", "pictures": 4, "texts": 12}
    assert found["precision"] == "toy" and found["facts"] == {"opset": 7}
    assert found["model"]["name"] == "lite" and found["model"]["before"] == found["model"]["after"]
    assert found["costs"]["bytes"]["new"] == 1000 and found["costs"]["bytes"]["old"] > 10_000_000
    assert str(tmp_path) not in json.dumps(found)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "out/network.bin").stat().st_mode) == 0o666 & ~umask


def test_one_that_is_off_leaves_nothing(asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, 0.05)
    with pytest.raises(NotTrue) as caught:
        export(asked)
    assert left(tmp_path) == []
    assert "the least cosine of image features is 0.99" in caught.value.message
    assert ", below 0.9999" in caught.value.message and "--min-cosine" in (caught.value.hint or "")
    assert caught.value.code == 1 and caught.value.report["passed"] is False


def test_the_users_limits_decide(asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, 0.05)
    found = export(replace(asked, min_cosine=0.99, min_agreement=0.0))
    assert found["passed"] and found["limits"] == {"cosine": 0.99, "agreement": 0.0}
    assert left(tmp_path) == ["out"]


def test_the_targets_limits_are_the_default(asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "limits", property(lambda self: Limits(0.5, 0.25)))
    assert export(asked)["limits"] == {"cosine": 0.5, "agreement": 0.25}


def test_another_scale_is_not_the_same_model(asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "spoil", staticmethod(lambda encoder: setattr(encoder, "logit_scale", 1.0)))
    with pytest.raises(NotTrue, match=r"the logit scale is 1\.0, not 22\.36"):
        export(replace(asked, min_cosine=0.0, min_agreement=0.0))
    assert left(tmp_path) == []


@pytest.mark.parametrize("error", [ClipkitError("no"), RuntimeError("inside a library"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing(
    asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(job: Job) -> None:
        raise error

    monkeypatch.setattr(Toy, "on_write", staticmethod(fail))
    with pytest.raises((type(error), ClipkitError)) as caught:
        export(asked)
    assert left(tmp_path) == [] and caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("File too large (os error 27)"),  # of tokenizers
        RuntimeError("basic_ios::clear: iostream error"),  # of OpenVINO
        ClipkitError("torch cannot export the text tower: [Errno 27] File too large"),
    ],
    ids=["Python", "Rust", "C++", "told by another"],
)
@pytest.mark.parametrize("behind", [False, True])
def test_a_full_disk_is_told_in_the_same_words_whoever_wrote(
    asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, behind: bool
) -> None:
    def fail(job: Job) -> None:
        if not behind:
            raise error
        try:
            raise error
        except Exception:
            raise ClipkitError("it cannot be exported") from None

    monkeypatch.setattr(Toy, "on_write", staticmethod(fail))
    with pytest.raises(ClipkitError) as caught:
        export(asked)
    assert left(tmp_path) == []
    assert caught.value.message == f"{tmp_path}/out cannot be written: no space left on the disk, or none for this user"
    assert "TMPDIR" in str(caught.value.hint)


def test_a_model_that_cannot_be_loaded_says_so_itself(
    asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that is full may be that of the hub's cache: then nothing of OUT is to be told."""

    def download(*_: Any) -> None:
        raise ClipkitError("cannot fetch it") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(running, "Source", download)
    with pytest.raises(ClipkitError, match=r"^cannot fetch it$"):
        export(asked)


def test_scratch_goes_too(asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(Toy, "on_write", staticmethod(lambda job: seen.append(job.scratch)))
    export(asked)
    assert seen and not seen[0].exists()


def test_what_is_there_is_never_touched(asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = lambda *args: pytest.fail("it was begun")  # noqa: E731
    monkeypatch.setattr(running, "Source", never)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        export(replace(asked, samples=never))
    assert (tmp_path / "out/mine.txt").read_text() == "mine" and left(tmp_path) == ["out"]


def test_what_comes_meanwhile_is_not_written_over(
    asked: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody(job: Job) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine.txt").write_text("mine")

    monkeypatch.setattr(Toy, "on_write", staticmethod(somebody))
    with pytest.raises(ClipkitError, match="exists"):
        export(asked)
    assert (tmp_path / "out/mine.txt").read_text() == "mine" and left(tmp_path) == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_can_be_made(asked: Export, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ClipkitError, match="cannot be written: permission denied"):
        export(asked)


def test_an_empty_folder_is_filled(asked: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(asked)
    assert (tmp_path / "out/parity.json").is_file()


def test_calibration_is_the_targets_and_samples_the_reports(
    asked: Export, few: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Samples] = []
    monkeypatch.setattr(Toy, "on_write", staticmethod(lambda job: seen.append(job.samples())))
    found = export(replace(asked, calibration=lambda: replace(few, name="others")))
    assert seen[0].name == "others" and found["samples"]["name"] == "carried"
    export(replace(asked, out=asked.out + "2"))
    assert seen[1].name == "carried"


def test_who_waits_is_told(asked: Export) -> None:
    told: list[str] = []
    export(replace(asked, tell=told.append))
    assert told == ["loading the model", "exporting the image tower"]
