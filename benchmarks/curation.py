"""The run that docs/curation.md walks through: a pool of photos, figures and planted copies, from shards to a pack.

    python benchmarks/curation.py ../shared/data

Prints each command and what it says. The pool is made of DATA/captions (coco, openstax, recipes) and DATA/neardup/made:
1,117 pairs, and 396 pictures of 36 of them (eleven variants each) with a caption that says nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = """
clipkit scan 'shards/*.tar' | clipkit score --by clip,lang,size,quality,caption -o scored.jsonl
clipkit stats scored.jsonl --by lang,width,height,scores.clip,scores.words,scores.blurry
clipkit filter --preset datacomp-basic --show
clipkit filter scored.jsonl --preset datacomp-basic --where 'scores.blurry >= 0.29' -o basic.jsonl --report basic.json
jq -c '{counts, drops}' basic.json
clipkit filter scored.jsonl --where 'scores.clip >= q(0.5)' --save-limits half.json -o half.jsonl
cat half.json
clipkit dedup basic.jsonl --by phash,semantic --eps 0.15 --keep best --best-by scores.clip \\
  --mark -o marked.jsonl
jq -r '.drop.reason // "kept"' marked.jsonl | sort | uniq -c
clipkit filter marked.jsonl --where 'missing(drop)' | clipkit filter --top-fraction 0.5 --by scores.clip -o chosen.jsonl
clipkit split chosen.jsonl --ratios train=0.9,val=0.1 --stratify lang -o parts/
wc -l parts/train.jsonl parts/val.jsonl
clipkit pack parts/train.jsonl -o clean/ --max-count 200
ls clean
clipkit scan 'clean/*.tar' | clipkit head -n 1 | clipkit set --keep id,image,text,scores.clip
clipkit explain web/openstax-us-history-CNX_History_01_01_Chichen__jpeg_q20 marked.jsonl | jq -c '.steps[-2:][]'
clipkit search 'a red bus in a street' 'clean/*.tar' --top-k 3 | clipkit set --keep id,scores.search,text
"""


def pool(data: Path, out: Path) -> None:
    """Records of all pairs, with ids that say where they come from."""
    with open(out, "w") as file:
        for name in ("coco", "openstax", "recipes"):
            folder = data / "captions" / name
            for line in (folder / "pairs.jsonl").read_text().splitlines():
                pair = json.loads(line)
                image = str((folder / pair["image"]).resolve())
                file.write(json.dumps({"id": f"{name}/{pair['id']}", "image": image, "text": pair["text"]}) + "\n")
        folder = data / "neardup"
        for line in (folder / "manifest.jsonl").read_text().splitlines():
            copy = json.loads(line)
            if copy["image"].startswith("made/"):
                image = str((folder / copy["image"]).resolve())
                record = {"id": f"web/{copy['id']}", "image": image, "text": "a photo found on the web"}
                file.write(json.dumps(record) + "\n")


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data").resolve()
    with tempfile.TemporaryDirectory() as scratch:
        pool(data, Path(scratch, "pool.jsonl"))
        env = {**os.environ, "CLIPKIT_CACHE": f"{scratch}/cache", "COLUMNS": "110", "PYTHON_COLORS": "0"}
        for step in ["clipkit pack pool.jsonl -o shards/ --max-count 500", *re.split(r"(?<!\\)\n", STEPS.strip())]:
            done = subprocess.run(
                step, shell=True, cwd=scratch, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            print(f"$ {step}\n{done.stdout}", end="" if done.returncode == 0 else f"exit {done.returncode}\n")


if __name__ == "__main__":
    main()
