"""What decoding and the model cost alone: CPU seconds an image, in one thread, without clipkit's runner.

    python benchmarks/encoding_cost.py MODEL FOLDER COUNT

Prints a JSON list: seconds an image to decode (to the model's input), and in the model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import process_time

import numpy as np

from clipkit.features.embedder import short_side
from clipkit.images.decode import decode
from clipkit.models.load import load


def main() -> None:
    encoder = load(sys.argv[1], threads=1)
    fit = short_side(encoder.identity.preprocess)
    files = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())[: int(sys.argv[3])]]
    decoding = encoding = 0.0
    for start in range(-encoder.batch_size, len(files), encoder.batch_size):  # the first batch is to get warm
        batch = files[max(start, 0) : max(start, 0) + encoder.batch_size]
        begun = process_time()
        pixels = np.stack([encoder.preprocess(decode(data, fit=fit)) for data in batch])
        decoded = process_time()
        encoder.encode_images(pixels)
        if start >= 0:
            decoding += decoded - begun
            encoding += process_time() - decoded
    print(json.dumps([decoding / len(files), encoding / len(files)]))


if __name__ == "__main__":
    main()
