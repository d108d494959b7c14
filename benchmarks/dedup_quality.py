"""What dedup finds of pictures that are known to be near: by transform, and against what people said of CIFAR-10.

    python benchmarks/dedup_quality.py            # Markdown tables
    python benchmarks/dedup_quality.py --model ViT-B-32:laion2b_s34b_b79k

neardup/made: 36 photos, each copied in ten ways. Found: in one connected component with its original. False: pairs of
two photos in one component.
cifar10: the pairs of the ciFAIR list that people called exact, near or similar, among 1,499 pictures of 32 x 32. Found:
in one component. Precision: how many of all pairs in one component are in the list, in whatever class.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from common import CLIPKIT, DATA, table

METHODS = (
    ("bytes", ()),
    ("pixels", ()),
    ("phash", ("--hamming", "6")),
    ("phash", ("--hamming", "10")),
    ("dhash", ("--hamming", "4")),
    ("dhash", ("--hamming", "6")),
    ("semantic", ("--eps", "0.03")),
    ("semantic", ("--eps", "0.05")),
    ("semantic", ("--eps", "0.1")),
    ("semantic", ("--eps", "0.15")),
)


def groups(folder: Path, records: list[dict[str, Any]], by: str, more: tuple[str, ...]) -> dict[str, str]:
    """The connected component of each record, by id."""
    given = "\n".join(json.dumps(record) for record in records)
    command = [*CLIPKIT, "dedup", "--by", by, *more, "--rule", "component", "--mark", "--root", str(folder), "-q"]
    done = subprocess.run(command, input=given.encode(), stdout=subprocess.PIPE, check=True)
    marked = [json.loads(line) for line in done.stdout.splitlines()]
    return {record["id"]: record.get("dup", {"group": record["id"]})["group"] for record in marked}


def named(by: str, more: tuple[str, ...]) -> str:
    return " ".join([by, *more[:2]]).replace("--", "")


def by_transform(model: tuple[str, ...]) -> None:
    """Share found of each transform, in percent, and how many pairs are false."""
    folder = DATA / "neardup"
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    records = [record for record in records if record["image"].startswith("made/")]
    transforms = list(dict.fromkeys(r["transform"] for r in records if r["transform"] != "original"))
    rows = []
    for by, more in METHODS:
        group = groups(folder, records, by, more + (model if by == "semantic" else ()))
        original = {r["group"]: group[r["id"]] for r in records if r["transform"] == "original"}
        found, total = Counter[str](), Counter[str]()
        for record in records:
            total[record["transform"]] += 1
            found[record["transform"]] += group[record["id"]] == original[record["group"]]
        pairs = itertools.combinations(records, 2)
        false = sum(group[a["id"]] == group[b["id"]] for a, b in pairs if a["group"] != b["group"])
        rows.append([named(by, more), *(f"{100 * found[t] / total[t]:.0f}" for t in transforms), str(false)])
    table(["method", *transforms, "false pairs"], rows)


def against_people(model: tuple[str, ...]) -> None:
    """How many are found of each class of pairs that people judged; how many of all pairs found they judged at all."""
    folder = DATA / "classification" / "cifar10"
    judged = [json.loads(line) for line in (folder / "near_duplicates.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    name = {record["image"]: record["id"] for record in records}
    truth = {frozenset((name[pair["a"]], name[pair["b"]])): pair["judgment"] for pair in judged}
    rows = []
    for by, more in METHODS:
        group = groups(folder, records, by, more + (model if by == "semantic" else ()))
        members: dict[str, list[str]] = {}
        for identifier, first in group.items():
            members.setdefault(first, []).append(identifier)
        linked = {frozenset(pair) for some in members.values() for pair in itertools.combinations(some, 2)}
        total = Counter(truth.values())
        found = Counter(judgment for pair, judgment in truth.items() if pair in linked)
        right = len(linked & truth.keys())
        rows.append(
            [
                named(by, more),
                *(f"{found[kind]} of {total[kind]}" for kind in ("exact", "near", "similar")),
                str(len(linked)),
                f"{right / len(linked):.2f}" if linked else "",
            ]
        )
    table(["method", "exact", "near", "similar", "pairs", "precision"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite")
    model = ("--model", parser.parse_args().model)
    by_transform(model)
    against_people(model)


if __name__ == "__main__":
    main()
