"""Every verb that reads records takes every kind of source, gives a record each, and does so without torch.

(Reading a folder of open_clip weights is another matter: here the model is the carried one.)
"""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from clipkit import verbs
from clipkit.loader import command
from clipkit.verbs import Verb

NAMES = ("blue", "green", "red")
# What a verb needs besides a source, where no plain value of the option's type will do.
NEEDS = {"explain": ["photos/red.png"], "set": ["--value", "split=train"], "zeroshot": ["--labels", "red,blue"]}
ENDS = {"explain": {0, 1}}  # ids depend on the kind of source: 1 where none is the one asked for
READERS = [verb for verb in verbs.builtins() if any(param.name == "sources" for param in command(verb).params)]


def options(verb: Verb) -> set[str]:
    return {name for param in command(verb).params for name in param.opts}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small pictures, and each kind of source that names them."""
    import pyarrow
    import pyarrow.parquet
    import zstandard

    base = tmp_path_factory.mktemp("sources")
    (base / "photos").mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 8), name).save(base / "photos" / f"{name}.png")
    rows = [{"id": f"photos/{name}.png", "image": f"photos/{name}.png", "text": f"all {name}"} for name in NAMES]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (base / "records.jsonl").write_bytes(lines)
    (base / "records.jsonl.gz").write_bytes(gzip.compress(lines))
    (base / "records.jsonl.zst").write_bytes(zstandard.compress(lines))
    (base / "references.txt").write_text("".join(f"{row['image']}\n" for row in rows))
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (base / f"records{suffix}").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), base / "records.parquet")
    with tarfile.open(base / "shard.tar", "w") as tar:
        for name in NAMES:
            tar.add(base / "photos" / f"{name}.png", f"{name}.png")
    coco = {
        "images": [{"id": n, "file_name": f"photos/{name}.png"} for n, name in enumerate(NAMES)],
        "annotations": [{"id": n, "image_id": n, "caption": f"all {name}"} for n, name in enumerate(NAMES)],
    }
    (base / "captions.json").write_text(json.dumps(coco))
    return base


# What is typed, and what standard input is.
SOURCES: dict[str, tuple[list[str], str | None]] = {
    "images": ([f"photos/{name}.png" for name in NAMES], None),
    "folder": (["photos"], None),
    "jsonl": (["records.jsonl"], None),
    "jsonl.gz": (["records.jsonl.gz"], None),
    "jsonl.zst": (["records.jsonl.zst"], None),
    "csv": (["records.csv"], None),
    "tsv": (["records.tsv"], None),
    "parquet": (["records.parquet"], None),
    "tar": (["shard.tar"], None),
    "coco": (["captions.json"], None),
    "records on stdin": ([], "records.jsonl"),
    "references on stdin": (["-"], "references.txt"),
}
PROGRAM = """
import json, os, sys
from clipkit import cli
codes = {}
for name, (args, stdin) in json.load(open(sys.argv[1])).items():
    os.dup2(os.open(stdin or os.devnull, os.O_RDONLY), 0)
    codes[name] = cli.run(args)
json.dump([codes, "torch" in sys.modules], open(sys.argv[2], "w"))
"""


@pytest.mark.parametrize("verb", READERS, ids=lambda verb: verb.name)
def test_every_source_without_torch(verb: Verb, folder: Path, tmp_path: Path) -> None:
    """All sources in one process, so that nothing else can have loaded torch for it, and at little cost."""
    writes = "--out" in options(verb)
    runs = {
        name: (
            [
                verb.name,
                *NEEDS.get(verb.name, []),
                *typed,
                *(["-o", str(tmp_path / f"{name}.jsonl")] if writes else []),
            ],
            stdin,
        )
        for name, (typed, stdin) in SOURCES.items()
    }
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    arguments = [str(tmp_path / "runs.json"), str(tmp_path / "result.json")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    codes, torch = json.loads((tmp_path / "result.json").read_text())
    assert not torch
    assert set(codes.values()) == ENDS.get(verb.name, {0}), f"{codes}\n{done.stderr}"
    if writes:
        counts = {name: len((tmp_path / f"{name}.jsonl").read_bytes().splitlines()) for name in SOURCES}
        assert set(counts.values()) == {len(NAMES)}, counts
