"""Make clipkit/text/wordnet.txt.gz from WordNet's own files.

python tools/build_wordnet.py DICT

DICT: the folder of a WordNet 3.0 dictionary as Princeton publishes it: dict/ of its archive, or /usr/share/wordnet
where Debian's package wordnet-base is installed. The result begins with WordNet's licence, which has to stay with it:

    # the licence, in lines that begin with #
    dog#1|domestic dog#1|Canis familiaris#1        a noun synset: its lemmas, each with the number of this sense of it
    !children child                                an irregular plural and its singulars
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "clipkit/text/wordnet.txt.gz"


def lines(folder: Path) -> Iterator[str]:
    senses: dict[tuple[str, str], int] = {}
    for line in (folder / "index.noun").read_text(encoding="ascii").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            offsets = fields[6 + int(fields[3]) :]
            senses |= {(fields[0], offset): number for number, offset in enumerate(offsets, 1)}
    for line in (folder / "data.noun").read_text(encoding="ascii").splitlines():
        if line.startswith(" "):
            yield f"# {line[4:].strip()}".rstrip()
            continue
        offset, _, _, count, *rest = line.split(" | ")[0].split()
        lemmas = rest[: 2 * int(count, 16) : 2]
        yield "|".join(f"{lemma.replace('_', ' ')}#{senses[lemma.lower(), offset]}" for lemma in lemmas)
    for line in (folder / "noun.exc").read_text(encoding="ascii").splitlines():
        yield "!" + line.strip()


def main() -> None:
    text = "\n".join(lines(Path(sys.argv[1]))) + "\n"
    OUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
