"""What open_clip's CoCa writes for an image, token by token: as `CoCa.generate` does, without its dependency.

That one asserts a transformers that still has `BeamSearchScorer`, which version 5 took away. Beams here give the very
tokens that it gives (tests hold it), with its peculiarities: they are ranked by sums of logits, not of logarithms of
probabilities, divided by the length; its default of 6 beams in 3 groups is a search with 2, three times over. Nucleus
sampling cuts before the temperature is applied, as there; but draws come from a hash, so that no answer depends on what
else is in a batch, or on torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

_NEVER = -1e9  # the score of beams that are equal to the first, at the beginning

Draw = Callable[[int], float]  # of a step, from 0: uniform in [0, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """start, end: token ids. least, most: tokens of a caption, `start` among them; an end comes after `least`."""

    start: int
    end: int
    least: int
    most: int


class Decoder:
    """A CoCa model in eval mode; images f32 [n, 3, h, w] go through it in batches of one shape, padded."""

    def __init__(self, model: nn.Module, limits: Limits, *, device: str, dtype: torch.dtype, batch: int) -> None:
        self._model, self._limits, self._device, self._dtype, self._batch = model, limits, device, dtype, batch

    def beams(self, images: np.ndarray, width: int) -> list[list[list[int]]]:
        """Of each image the `width` best captions, best first, as token ids without start and end."""
        return [found for part in self._parts(images) for found in self._beams(part, width)[: len(part)]]

    def nucleus(self, images: np.ndarray, draws: Sequence[Draw], top_p: float, temperature: float) -> list[list[int]]:
        """Of each image one caption: each token drawn from the likeliest that have `top_p` together."""
        found: list[list[int]] = []
        for part in self._parts(images):
            found += self._nucleus(part, draws[len(found) : len(found) + len(part)], top_p, temperature)
        return found

    def _parts(self, images: np.ndarray) -> list[np.ndarray]:
        return [images[start : start + self._batch] for start in range(0, len(images), self._batch)]

    def _seen(self, part: np.ndarray, copies: int) -> torch.Tensor:
        """What the decoder attends to: the tokens of each image, so many times, of a full batch."""
        padded = torch.zeros((self._batch, *part.shape[1:]))
        padded[: len(part)] = torch.from_numpy(np.ascontiguousarray(part))
        with self._running():
            _, tokens = self._model._encode_image(padded.to(self._device))  # type: ignore[operator]
        repeated: torch.Tensor = tokens.repeat_interleave(copies, dim=0)
        return repeated

    def _next(self, seen: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits f32 [n, v] of the token after `ids` [n, length], on the CPU."""
        with self._running():
            out = self._model(None, ids.to(self._device), image_latent=seen, image_embs=seen, output_labels=False)
        logits: torch.Tensor = out["logits"][:, -1].float().cpu()
        if ids.shape[1] < self._limits.least:
            logits[:, self._limits.end] = -torch.inf
        return logits

    def _running(self) -> torch.autocast:
        kind = self._device.partition(":")[0]
        return torch.autocast(kind, dtype=self._dtype, enabled=self._dtype != torch.float32)

    @torch.inference_mode()
    def _nucleus(self, part: np.ndarray, draws: Sequence[Draw], top_p: float, temperature: float) -> list[list[int]]:
        seen = self._seen(part, 1)
        ids = torch.full((self._batch, 1), self._limits.start)
        open_rows = set(range(len(part)))
        found: list[list[int]] = [[] for _ in part]
        for step in range(self._limits.most - 2):  # the last token would be the end in any case
            logits = self._next(seen, ids)
            taken = torch.full((self._batch, 1), self._limits.end)
            for row in sorted(open_rows):
                token = _drawn(logits[row], draws[row](step), top_p, temperature)
                taken[row] = token
                if token == self._limits.end:
                    open_rows.remove(row)
                else:
                    found[row].append(token)
            if not open_rows:
                break
            ids = torch.cat((ids, taken), dim=1)
        return found

    @torch.inference_mode()
    def _beams(self, part: np.ndarray, width: int) -> list[list[list[int]]]:
        seen = self._seen(part, width)
        ids = torch.full((self._batch * width, 1), self._limits.start)
        scores = torch.full((self._batch, width), _NEVER)
        scores[:, 0] = 0
        searches = [_Search(width, self._limits.end) for _ in range(self._batch)]
        for padding in searches[len(part) :]:
            padding.done = True
        while ids.shape[1] < self._limits.most and not all(search.done for search in searches):
            logits = self._next(seen, ids)
            sums = (logits.view(self._batch, width, -1) + scores[:, :, None]).view(self._batch, -1)
            best, places = torch.topk(sums, 2 * width, dim=1)
            rows, tokens = places // logits.shape[1], places % logits.shape[1]
            order = torch.arange(len(ids)).view(self._batch, width)
            added = torch.full((self._batch, width), self._limits.end)
            for at, search in enumerate(searches):
                if search.done:
                    continue
                beams = ids[at * width : (at + 1) * width]
                kept = search.advance(beams, best[at].tolist(), tokens[at].tolist(), rows[at].tolist())
                for place, (score, token, row) in enumerate(kept):
                    scores[at, place], added[at, place], order[at, place] = score, token, at * width + row
            ids = torch.cat((ids[order.view(-1)], added.view(-1, 1)), dim=1)
        for at, search in enumerate(searches):
            if not search.done:
                for beam, score in zip(ids[at * width : (at + 1) * width], scores[at].tolist(), strict=True):
                    search.add(score / ids.shape[1], beam.tolist())
        return [[tokens[1:] for tokens in search.best()] for search in searches]


@dataclass
class _Search:
    """The finished captions of one image, `width` at most, each with its score; and whether none can be better."""

    width: int
    end: int
    done: bool = False
    finished: list[tuple[float, list[int]]] = field(default_factory=list)

    def advance(
        self, beams: torch.Tensor, scores: Sequence[float], tokens: Sequence[int], rows: Sequence[int]
    ) -> list[tuple[float, int, int]]:
        """Take the best continuations, best first; gives those that go on: score, token, which beam."""
        length, kept = beams.shape[1] + 1, []
        for rank, (score, token, row) in enumerate(zip(scores, tokens, rows, strict=True)):
            if token != self.end:
                kept.append((score, token, row))
            elif rank < self.width:
                self.add(score / length, beams[row].tolist())
            if len(kept) == self.width:
                break
        full = len(self.finished) == self.width
        self.done = full and min(score for score, _ in self.finished) >= max(scores) / length
        return kept

    def add(self, score: float, tokens: list[int]) -> None:
        if len(self.finished) < self.width or score > min(score for score, _ in self.finished):
            self.finished.append((score, tokens))
            if len(self.finished) > self.width:
                self.finished.remove(min(self.finished, key=lambda pair: pair[0]))

    def best(self) -> list[list[int]]:
        """The finished captions, best first; of equal ones the later."""
        return [tokens for _, tokens in sorted(self.finished, key=lambda pair: pair[0])[::-1]]


def _drawn(logits: torch.Tensor, uniform: float, top_p: float, temperature: float) -> int:
    """A token of logits [v], by a uniform number in [0, 1).

    The likeliest stay until they have top_p together, one at least; of these one is drawn at the temperature.
    """
    ascending, places = torch.sort(logits)
    gone = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    gone[-1] = False
    kept = logits.index_fill(0, places[gone], -torch.inf)
    sums = (kept / temperature).softmax(dim=-1).double().cumsum(dim=-1)
    token = int(torch.searchsorted(sums, uniform * sums[-1], right=True))
    return min(token, len(logits) - 1)
