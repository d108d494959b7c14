"""A small set of pairs for each class, all of one size: what REAL-Linear trains on (Parashar et al., 2024)."""

from __future__ import annotations

import numpy as np


def share_out(records: np.ndarray, classes: np.ndarray, scores: np.ndarray, ties: np.ndarray, most: int) -> np.ndarray:
    """Which of the pairs of a record and a class that it fits are taken, their numbers i64, best first.

    Pairs are gone through by falling score, equal ones by rising tie and then by class; one is taken unless its record
    is taken or its class has `most`. So a record goes to the class that it fits best, or if that is full to its next
    best, and the input's order decides nothing.

    records, classes: integers [n]. scores: f64 [n]. ties: u64 [n], of the record.
    """
    seats = np.full(int(classes.max(initial=-1)) + 1, most).tolist()
    left = sum(seats)
    gone: set[int] = set()
    taken = []
    for pair in np.lexsort((classes, ties, -scores)):
        if not left:
            break
        record, to = int(records[pair]), int(classes[pair])
        if seats[to] and record not in gone:
            seats[to] -= 1
            left -= 1
            gone.add(record)
            taken.append(pair)
    return np.array(taken, np.int64)
