"""Does REAL-Prompt help: zero-shot accuracy with class names, and with the names that captions use most.

    python benchmarks/synonyms.py            # a Markdown table
    python benchmarks/synonyms.py --model ViT-B-32:laion2b_s34b_b79k

Captions: 11,162 of CC3M. Synonyms: WordNet's, or those below. These were written when the accuracy with class names was
known, class by class, and that with synonyms was not: take what they gain for the most that can be hoped for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from common import CLIPKIT, DATA, table

CAPTIONS = DATA / "alttext/cc3m_val.parquet"
TRUTH = {"caltech101": "text", "clothing": "label"}  # the field with the class name
BY_HAND = {
    "caltech101": {
        "airplane": ["plane", "aeroplane"],
        "car_side": ["car", "automobile"],
        "cup": ["mug"],
        "ferry": ["ferryboat"],
        "hawksbill": ["hawksbill turtle", "sea turtle"],
        "helicopter": ["chopper"],
        "ketch": ["sailboat", "sailing boat"],
        "laptop": ["notebook computer"],
        "motorbike": ["motorcycle"],
        "pigeon": ["dove"],
        "rooster": ["cockerel"],
        "starfish": ["sea star"],
    },
    "clothing": {
        "dress": ["gown", "frock"],
        "hat": ["cap"],
        "longsleeve": ["long sleeve shirt", "long-sleeved shirt", "long sleeve"],
        "outwear": ["outerwear", "jacket", "coat"],
        "pants": ["trousers", "jeans"],
        "shirt": ["dress shirt", "button-up shirt"],
        "shoes": ["shoe", "sneakers", "footwear"],
        "shorts": ["short pants"],
        "t-shirt": ["tee", "tee shirt"],
    },
}


def records(name: str) -> list[dict[str, Any]]:
    lines = (DATA / "classification" / name / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def label_file(folder: Path, name: str, synonyms: str) -> Path:
    """What `concepts synonyms` writes for the classes of a data set. synonyms: WordNet or by hand."""
    classes, words, out = folder / f"{name}.txt", folder / f"{name}-words.json", folder / f"{name}-{synonyms}.json"
    classes.write_text("\n".join(sorted({record[TRUTH[name]] for record in records(name)})))
    words.write_text(json.dumps(BY_HAND[name]))
    more = ["--synonyms", words] if synonyms == "by hand" else []
    subprocess.run(
        [*CLIPKIT, "concepts", "synonyms", CAPTIONS, "--labels", f"@{classes}", *more, "-o", out], check=True
    )
    return out


def accuracy(name: str, labels: Path, model: list[str]) -> float:
    folder = DATA / "classification" / name
    command = [*CLIPKIT, "zeroshot", "-", "--root", folder, "--labels", f"@{labels}", "-q", *model]
    given = "\n".join(map(json.dumps, records(name)))
    done = subprocess.run(command, input=given.encode(), stdout=subprocess.PIPE, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return sum(record["pred"]["label"] == record[TRUTH[name]] for record in found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite")
    model = ["--model", parser.parse_args().model]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in TRUTH:
            files = {said: label_file(folder, name, said) for said in ("WordNet", "by hand")}
            files = {"class names": folder / f"{name}.txt", **files}
            rows.append((name, *(f"{100 * accuracy(name, path, model):.1f}" for path in files.values())))
    table(("percent right", "class names", "WordNet", "by hand"), rows)


if __name__ == "__main__":
    main()
