"""Every verb that reads records reads every kind of source, and none of them needs torch for it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from PIL import Image

from clipkit import verbs
from clipkit.loader import command

CASES = Path(__file__).parent / "cases"

# What a verb needs besides its source.
ARGUMENTS: dict[str, list[str]] = {
    "apply": [str(CASES / "apply/basic/parts.adapter"), "--no-cache"],
    "balance": ["--t", "1", "--mark", "--on-error", "keep", "--lenient"],  # a lone picture has no caption
    "balance count": ["--metadata", "entries.txt", "--on-error", "skip", "--lenient"],
    "zeroshot": ["--labels", "red,green", "--no-cache"],
    "embed": ["--no-cache"],
    "set": ["--value", "label=x"],
    "cluster": ["--k", "2", "--no-cache"],
    "explain": ["a.png"],
    "scan": ["--size"],
    "decontaminate": ["--against", str(CASES / "decontaminate/pictures/eval.jsonl"), "--no-cache"],
    "cluster describe": [
        "--centroids",
        str(CASES / "cluster/assign/three.safetensors"),
        "--concepts",
        "red,green",
        "--on-error",
        "skip",
        "--lenient",
        "--no-cache",
    ],
    "concepts count": ["--concepts", "red,green", "--by", "image"],  # it encodes 300 nouns: once is enough
    "concepts curve": [
        "--counts",
        str(CASES / "concepts-curve/answers/counts.jsonl"),
        "--on-error",
        "skip",
        "--lenient",
    ],
    "concepts retrieve": ["--labels", "red,green", "--rank", "random", "--mark", "--on-error", "keep", "--lenient"],
    "concepts synonyms": ["--labels", "red,green", "--on-error", "skip", "--lenient"],
    "corrupt": ["--shuffle", "0.5", "--on-error", "keep", "--lenient"],
    "dedup": ["--by", "pixels"],
    "eval": ["--no-cache"],
    "eval classification": ["--no-cache"],
    "eval few-shot": ["--no-cache"],
    "eval linear-probe": ["--no-cache"],
    "eval ood": ["--ood", str(CASES / "apply/basic/red.png"), "--labels", "red,green", "--no-cache"],
    "eval pairs": ["--no-cache"],
    "eval retrieval": ["--no-cache"],
    "eval robustness": ["--no-cache"],
    "fetch": ["--to", "downloads"],
    "filter": ["--where", "not missing(image)"],
    "join": ["m.jsonl"],
    "pack": ["-o", "packed", "--restart"],
    "prune": ["--method", "random", "--keep", "2"],
    "sample": ["--count", "2"],
    "score": ["--by", "size,hash"],
    "search": ["red", "--no-cache"],
    "sort": ["--by", "id"],
    "train": ["--model", "tiny-ViT-32", "--batch-size", "3", "-o", "run", "--on-error", "skip"],
    "train-adapter": [
        "--update",
        str(CASES / "train-adapter/update/old.adapter"),
        "--label-from",
        "folder",
        "-o",
        "updated",
        "--restart",
        "--no-cache",
    ],
}
PRINT_NO_RECORDS = (
    "balance count",
    "cluster describe",
    "concepts count",
    "concepts curve",
    "concepts synonyms",
    "concepts tail",
    "eval",
    "eval classification",
    "eval few-shot",
    "eval linear-probe",
    "eval ood",
    "eval pairs",
    "eval predictions",
    "eval retrieval",
    "eval robustness",
    "explain",
    "pack",
    "stats",
    "train",
    "train-adapter",
    "validate",
)
EXIT_CODES = {
    "concepts tail": (1,),  # these are no counts
    "eval": (0, 2),  # 2: nothing in the records tells which task they are for
    "eval classification": (1,),  # there is no label
    "eval few-shot": (1,),
    "eval linear-probe": (1,),
    "eval pairs": (1,),  # there is no near miss
    "eval predictions": (1,),  # there is no answer
    "eval retrieval": (0, 1),  # 1: no caption
    "eval robustness": (1,),  # there is no label
    "explain": (0, 1, 4),  # 1: the source has no record of that id
    "train": (1,),  # two pairs are less than a batch: what more is done needs torch
    "train-adapter": (0, 1),  # 1: what lies in no folder has no label
}
READERS = [verb.name for verb in verbs.builtins() if any(p.name == "sources" for p in command(verb).params)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same two pictures as every kind of source."""
    root = tmp_path_factory.mktemp("sources")
    photos = root / "photos"
    photos.mkdir()
    for name, colour in (("a.png", (220, 20, 20)), ("b.png", (20, 220, 20))):
        Image.new("RGB", (64, 48), colour).save(photos / name)
    rows: list[dict[str, Any]] = [
        {"id": "a.png", "image": "photos/a.png", "text": "red, said twice: red"},
        {"id": "b.png", "image": "photos/b.png", "text": "gr\u00fcn"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (root / "m.jsonl").write_bytes(lines)
    (root / "m.jsonl.gz").write_bytes(gzip.compress(lines))
    (root / "m.jsonl.zst").write_bytes(zstandard.compress(lines))
    for name, delimiter in (("m.csv", ","), ("m.tsv", "\t")):
        with open(root / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "image", "text"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    program = """if True:
        import json, sys
        import pyarrow, pyarrow.parquet
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(json.load(sys.stdin)), sys.argv[1])
    """
    subprocess.run([sys.executable, "-c", program, root / "m.parquet"], input=json.dumps(rows), text=True, check=True)
    with tarfile.open(root / "s.tar", "w") as tar:
        for name in ("a", "b"):
            for suffix, data in ((".png", (photos / f"{name}.png").read_bytes()), (".txt", name.encode())):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    coco = {
        "images": [{"id": 1, "file_name": "photos/a.png"}, {"id": 2, "file_name": "photos/b.png"}],
        "annotations": [{"id": i, "image_id": i, "caption": "one"} for i in (1, 2)],
    }
    (root / "captions.json").write_text(json.dumps(coco))
    (root / "entries.txt").write_text("red\nred panda\n")
    return root


KINDS = [
    "photos",
    "photos/a.png",
    "m.jsonl",
    "m.jsonl.gz",
    "m.jsonl.zst",
    "m.csv",
    "m.tsv",
    "m.parquet",
    "s.tar",
    "captions.json",
]


@pytest.mark.parametrize("verb", READERS)
def test_every_kind_of_source_without_torch(verb: str, sources: Path) -> None:
    program = """if True:
        import contextlib, io, json, os, sys
        from clipkit import cli
        codes = {}
        for kind in json.loads(sys.argv[1]):
            out = io.TextIOWrapper(io.BytesIO())
            with contextlib.redirect_stdout(out):
                code = cli.run([*sys.argv[2:], kind])
                out.flush()
            codes[kind] = [code, out.buffer.getvalue().decode()]
        print(json.dumps([codes, sorted(sys.modules)]))
    """
    words = [*verb.split(), *ARGUMENTS.get(verb, [])]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, json.dumps(KINDS), *words],
        cwd=sources,
        capture_output=True,
        text=True,
        check=True,
    )
    results, modules = json.loads(done.stdout)
    assert not {"torch", "open_clip", "webdataset"} & set(modules)
    for kind, (code, out) in results.items():
        assert code in EXIT_CODES.get(verb, (0,)), (kind, done.stderr)
        if verb in PRINT_NO_RECORDS:
            continue
        records = [json.loads(line) for line in out.splitlines()]
        assert len(records) == (1 if kind.endswith(".png") else 2), kind
        if verb == "zeroshot":
            assert all(record["pred"]["label"] in ("red", "green") for record in records)
        if verb == "embed":
            assert all("image" in record["emb"] for record in records)


@pytest.mark.parametrize("verb", ["cat", "zeroshot"])
@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_bare_references_on_stdin(verb: str, separator: str, sources: Path, clipkit: Any) -> None:
    flags = ["-0"] if separator == "\0" else []
    references = separator.join(["photos/b.png", "photos/a.png", ""])
    done = clipkit(*verb.split(), *ARGUMENTS.get(verb, []), *flags, stdin=references, cwd=sources)
    assert done.code == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.lines] == ["photos/b.png", "photos/a.png"]


def test_nul_separated_references_without_the_flag_are_told(sources: Path, clipkit: Any) -> None:
    done = clipkit("cat", stdin="photos/b.png\0photos/a.png\0", cwd=sources)
    assert done.code == 1 and "-0" in done.stderr


def test_captions_outside_the_root_are_not_read_under_confine(tmp_path: Path, clipkit: Any) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    (tmp_path / "secret").write_text("a secret")
    (photos / "a.txt").symlink_to(tmp_path / "secret")
    done = clipkit("scan", photos, "--size", "--confine", "--root", photos, cwd=tmp_path)
    assert done.code == 0 and "a secret" not in done.stdout
