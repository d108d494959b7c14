"""Centroids: the nearest is the nearest whatever f32 makes of it, alone or in a batch; and files that say whose."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from clipkit.errors import ClipkitError
from clipkit.features.centroids import PROBES, Centroids, Groups
from tests.features.test_kmeans import directions, generators, unit


def made(rows: np.ndarray, spherical: bool = True, groups: Groups | None = None) -> Centroids:
    return Centroids(rows.astype(np.float32), np.arange(len(rows)), spherical, "m@1", "image", groups)


def brute(rows: np.ndarray, centroids: np.ndarray, spherical: bool) -> np.ndarray:
    """All distances in f64, [n, k]."""
    wide, middle = rows.astype(np.float64), centroids.astype(np.float64)
    if spherical:
        return np.round(1 - np.einsum("nd,kd->nk", wide, middle), 12)
    return np.round(np.sqrt(((wide[:, None] - middle[None]) ** 2).sum(axis=2)), 12)


def hard(rng: np.random.Generator, k: int, dim: int) -> np.ndarray:
    """Centroids of which some are equal, and some so near each other that f32 confuses them."""
    rows = rng.standard_normal((k, dim))
    copies = rng.integers(0, k, k)
    close = rng.random(k) < 0.6
    rows[close] = rows[copies[close]] + rng.choice([0, 1e-7, 1e-6, 1e-4], (int(close.sum()), 1)) * rng.standard_normal(
        (int(close.sum()), dim)
    )
    return unit(rows)


@settings(max_examples=60, deadline=None)
@given(generators, st.booleans())
def test_the_nearest_is_the_nearest(rng: np.random.Generator, spherical: bool) -> None:
    n, k, dim = int(rng.integers(1, 60)), int(rng.integers(1, 40)), int(rng.choice([2, 3, 16, 64]))
    centroids, rows = hard(rng, k, dim), unit(rng.standard_normal((n, dim)))
    rows[: n // 3] = centroids[rng.integers(0, k, n // 3)]
    nearest, distance = made(centroids, spherical).assign(rows)
    apart = brute(rows, centroids, spherical)
    assert np.array_equal(nearest, apart.argmin(axis=1))  # argmin: the lower number of equal ones
    np.testing.assert_allclose(distance, np.maximum(apart.min(axis=1), 0), atol=1e-12)
    assert (nearest.dtype, distance.dtype) == (np.int32, np.float64)
    assert not np.signbit(distance).any()


@settings(max_examples=40, deadline=None)
@given(generators, st.booleans())
def test_in_groups_it_is_the_nearest_of_the_nearest_groups(rng: np.random.Generator, spherical: bool) -> None:
    count, dim = int(rng.integers(1, 20)), int(rng.choice([3, 16]))
    starts = np.cumsum([0, *rng.integers(1, 6, count)])
    groups = Groups(hard(rng, count, dim), starts)
    centroids, rows = hard(rng, int(starts[-1]), dim), unit(rng.standard_normal((50, dim)))
    found = made(centroids, spherical, groups)
    nearest, distance = found.assign(rows)
    to_groups, apart = brute(rows, groups.rows, spherical), brute(rows, centroids, spherical)
    for row in range(50):
        probed = np.argsort(to_groups[row], kind="stable")[:PROBES]
        allowed = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in np.sort(probed)])
        assert nearest[row] == allowed[apart[row, allowed].argmin()]
    alone = [found.assign(rows[i : i + 1]) for i in range(50)]
    assert np.concatenate([a[0] for a in alone]).tobytes() == nearest.tobytes()
    assert np.concatenate([a[1] for a in alone]).tobytes() == distance.tobytes()


@pytest.mark.parametrize("spherical", [True, False])
def test_alone_as_in_a_batch(spherical: bool) -> None:
    rng = np.random.default_rng(0)
    found, rows = made(hard(rng, 300, 512), spherical), unit(rng.standard_normal((100, 512)))
    nearest, distance = found.assign(rows)
    for size in (1, 7, 33):
        parts = [found.assign(rows[start : start + size]) for start in range(0, 100, size)]
        assert np.concatenate([part[0] for part in parts]).tobytes() == nearest.tobytes()
        assert np.concatenate([part[1] for part in parts]).tobytes() == distance.tobytes()
    assert found.assign(rows[:0])[0].shape == (0,)


def test_many_equal_centroids_cost_nothing_and_the_first_is_taken() -> None:
    found = made(np.repeat(directions(0, 90), 500, axis=0))
    assert found.assign(directions(3, 80, 45))[0].tolist() == [0, 500, 0]
    assert len(found._distinct) == 2


# Files

GROUPS = Groups(directions(0, 90), np.array([0, 1, 3]))


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_a_file_gives_the_same_back(tmp_path: Path, groups: Groups | None) -> None:
    path = str(tmp_path / "c.safetensors")
    one = made(directions(0, 80, 100), False, groups)
    one.save(path)
    other = Centroids.load(path)
    assert other.rows.tobytes() == one.rows.tobytes()
    assert other.sizes.tolist() == [0, 1, 2]
    assert (other.spherical, other.model, other.by) == (False, "m@1", "image")
    assert other.via == one.via == f"cluster/{one.digest}/m@1"
    assert (other.groups is None) == (groups is None)
    first = Path(path).read_bytes()
    other.save(path)
    assert Path(path).read_bytes() == first
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_groups_are_part_of_what_names_the_clusters() -> None:
    rows = directions(0, 80, 100)
    assert made(rows).digest != made(rows, groups=GROUPS).digest


def test_the_distance_is_part_of_what_names_the_clusters() -> None:
    """With one member a cluster the centroids are the vectors either way; `dist` is not the same."""
    rows = directions(0, 80, 100)
    assert made(rows).digest != made(rows, spherical=False).digest


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    made(directions(0, 90)).save(str(path))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        made(directions(0, 45)).save(str(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_a_link_stays_one_and_a_device_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    made(directions(0, 90)).save(str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert len(Centroids.load(str(tmp_path / "real"))) == 2
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    made(directions(0, 90)).save(str(tmp_path / "pipe"))
    assert os.read(reader, 1 << 16) == (tmp_path / "real").read_bytes()
    os.close(reader)


def written(path: Path, said: dict[str, str] | None = None, **tensors: np.ndarray) -> str:
    """A file as `save` makes one, but for what is given."""
    made(directions(0, 80, 100), groups=GROUPS).save(str(path))
    held = load_file(path) | tensors
    meta = {"format": "1", "kind": "centroids", "spherical": "true", "model": "m@1", "by": "image"} | (said or {})
    save_file(held, path, meta)
    return str(path)


WRONG = {
    "sizes": {"sizes": np.array([1, 2])},
    "negative": {"sizes": np.array([1, -1, 2])},
    "type": {"centroids": directions(0, 80, 100).astype(np.float16)},
    "flat": {"centroids": np.zeros(6, np.float32)},
    "not finite": {"centroids": np.full((3, 2), np.nan, np.float32)},
    "not of unit length": {"centroids": 2 * directions(0, 80, 100)},
    "groups not of unit length": {"groups": 3e38 * directions(0, 90)},
    "groups": {"starts": np.array([0, 1, 2])},
    "starts": {"starts": np.array([0, 0, 3])},
    "width": {"groups": np.zeros((2, 5), np.float32)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_does_not_hold_together_is_refused(tmp_path: Path, wrong: str) -> None:
    assert len(Centroids.load(written(tmp_path / "good"))) == 3
    with pytest.raises(ClipkitError, match="damaged or no file of centroids") as raised:
        Centroids.load(written(tmp_path / "c", **WRONG[wrong]))
    assert "--save-centroids" in str(raised.value.hint)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "c"
    whole = Path(written(path)).read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2], whole[:-1], b"\xff" * 64, bytes(8)):
        path.write_bytes(data)
        with pytest.raises(ClipkitError, match="damaged or no file of centroids"):
            Centroids.load(str(path))
    with pytest.raises(ClipkitError, match="there is no such file") as missing:
        Centroids.load(str(tmp_path / "none"))
    assert "--save-centroids FILE (which is there once that run has ended" in str(missing.value.hint)
    with pytest.raises(ClipkitError, match="damaged or no file"):
        Centroids.load(str(tmp_path))
    with pytest.raises(ClipkitError, match="holds no centroids"):
        Centroids.load(written(path, {"kind": "head"}))
    with pytest.raises(ClipkitError, match=r"newer clipkit \(format 2\)"):
        Centroids.load(written(path, {"format": "2"}))
    for damaged in ({"format": "x"}, {"spherical": "yes"}, {"by": "sound"}):
        with pytest.raises(ClipkitError, match="damaged"):
            Centroids.load(written(path, damaged))
    assert not Centroids.load(written(path, {"spherical": "false"}, centroids=directions(0, 80, 100) / 2)).spherical
    with pytest.raises(ClipkitError, match="no means of unit vectors"):
        Centroids.load(written(path, {"spherical": "false"}, centroids=1e30 * directions(0, 80, 100)))
    header = json.dumps({"centroids": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ClipkitError):
        Centroids.load(str(path))


def test_whose_they_are() -> None:
    found = made(directions(0, 90))
    found.require("m@1", "image", 2)
    found.require("the same by another name@1", "image", 2)
    with pytest.raises(ClipkitError, match="of image features of m@1, these are of image features of lite@2") as raised:
        found.require("lite@2", "image", 2)
    assert "--model PATH/TO/m" in str(raised.value.hint)
    with pytest.raises(ClipkitError, match="of image features, these are of text") as raised:
        found.require("m@1", "text", 2)
    assert "--by image" in str(raised.value.hint)
    with pytest.raises(ClipkitError, match="of 2 dimensions, and m@1 has 512"):
        found.require("m@1", "image", 512)
