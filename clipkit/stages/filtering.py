"""What a user asks of `filter`, as the config of a stage; and limits as a file."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods import FILTERS
from clipkit.methods.filters.presets import Preset
from clipkit.stages.filter import Filter, RankedFilter, is_ranked, read_clauses
from clipkit.stream.record import encode_json
from clipkit.stream.sink import FileSink
from clipkit.stream.where import field_name, uses

_FORMAT = 1


def preset(name: str) -> Preset:
    """A preset by its name. Raises UsageError for one that there is not."""
    found: Preset = FILTERS.get(name)()
    return found


def config(
    where: list[str],
    chosen: Preset | None,
    *,
    top_fraction: float | None = None,
    top_k: int | None = None,
    by: str | None = None,
    strict: bool = False,
    any_model: bool = False,
    entities: tuple[str | None, str | None] = (None, None),
    invert: bool = False,
) -> dict[str, Any]:
    """The config of a Filter or a RankedFilter: the preset's conditions first, then the user's own.

    Flags of the top go before the preset's. Raises UsageError for what does not go together.
    """
    conditions = [*(chosen.where if chosen else ()), *where]
    top = _top(chosen, top_fraction, top_k, field_name(by) if by else None, strict)
    if not conditions and top is None:
        raise UsageError("nothing to go by", "say --where, --preset, --top-fraction or --top-k")
    bound = None
    if chosen and chosen.model and not any_model:
        field = top["by"] if chosen.by and top else chosen.scored
        bound = {"field": field, "model": chosen.model, "preset": chosen.name}
    return {
        "where": conditions,
        "top": top,
        "bound": bound,
        "entities": _entities(conditions, *entities),
        "invert": invert,
    }


def _top(
    chosen: Preset | None, fraction: float | None, k: int | None, by: str | None, strict: bool
) -> dict[str, Any] | None:
    if fraction is not None and k is not None:
        raise UsageError("--top-fraction or --top-k, not both")
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"--top-fraction is above 0 and at most 1, not {fraction:g}", "0.3 is the best 30 %")
    if chosen and chosen.top_fraction is not None and fraction is None and k is None:
        fraction = chosen.top_fraction
    by = by or (chosen.by if chosen else None)
    if fraction is None and k is None:
        if by or strict:
            raise UsageError(f"{'--by' if by else '--strict-datacomp'} needs --top-fraction or --top-k")
        return None
    if not by:
        raise UsageError("--top-fraction and --top-k need --by", "name the field: --by scores.clip")
    if strict and fraction is None:
        raise UsageError("--strict-datacomp is a rule of --top-fraction", "leave it out, or say --top-fraction")
    return {"by": by, "strict": strict, **({"k": k} if fraction is None else {"fraction": fraction})}


def _entities(conditions: list[str], wordnet: str | None, synsets: str | None) -> dict[str, str] | None:
    if not any(uses(clause, "entity") for clause in read_clauses(conditions)):
        if wordnet or synsets:
            raise UsageError(f"{'--wordnet' if wordnet else '--synsets'} is for entity() in a condition")
        return None
    if not wordnet or not synsets:
        raise UsageError(
            f"entity() needs {'--synsets' if wordnet else '--wordnet'}",
            "--wordnet DIR is the folder of WordNet 3.0's files, --synsets FILE a list of synsets such as n02084071",
        )
    return {"wordnet": wordnet, "synsets": synsets}


def stage(config: dict[str, Any], limits: str | None = None, *, save: bool = False) -> Filter | RankedFilter:
    """The stage for a config: by the limits of a file, or else by all records where these decide.

    Raises UsageError for limits that are not about this config, or where there are none.
    """
    ranked = is_ranked(config)
    if not ranked and (limits or save):
        flag = "--limits" if limits else "--save-limits"
        raise UsageError(
            f"{flag}: no limit here depends on other records", "it goes with --top-fraction, --top-k or q()"
        )
    if limits:
        return Filter({**config, "limits": _matching(_read(limits), config, limits)})
    return RankedFilter(config) if ranked else Filter(config)


def save_limits(stage: Filter | RankedFilter, path: str) -> None:
    """Write what a RankedFilter learned."""
    assert isinstance(stage, RankedFilter)
    sink = FileSink(path)
    sink.write(encode_json({"format": _FORMAT, "kind": "filter-limits", **stage.limits}), "")
    sink.commit()


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read())
    except OSError as error:
        raise UsageError(f"--limits {path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeError):
        found = None
    if not isinstance(found, dict) or found.get("kind") != "filter-limits":
        raise UsageError(f"--limits {path} holds no limits", "clipkit filter --save-limits writes them")
    if found.get("format") != _FORMAT:
        raise ClipkitError(
            f"--limits {path} has format {found.get('format')!r}, this clipkit knows {_FORMAT}", "upgrade clipkit"
        )
    return found


def _matching(found: dict[str, Any], config: dict[str, Any], path: str) -> dict[str, Any]:
    """Limits once it is sure that they are well-formed and about every q() and the top of a config."""
    try:
        quantiles = [
            {"field": str(q["field"]), "p": float(q["p"]), "value": _finite(q["value"])} for q in found["quantiles"]
        ]
        top = found["top"]
        if top is not None:
            named = {name: top[name] for name in ("by", "strict", "k", "fraction") if name in top}
            last = top["last_id"]
            top = {"value": _finite(top["value"]), "last_id": last if last is None else str(last)}
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"--limits {path} is damaged", "write it anew with --save-limits") from None
    for clause in read_clauses(config["where"]):
        for q in clause.quantiles:
            if not any((one["field"], one["p"]) == (q.field, q.p) for one in quantiles):
                raise UsageError(
                    f"--limits {path} does not know q({q.p:g}) of {q.field}", "write it with these conditions"
                )
    if config["top"] and (top is None or named != config["top"]):
        raise UsageError(f"--limits {path} is of another --top-fraction, --top-k or --by", "write it with these flags")
    return {"quantiles": quantiles, "top": top}


def _finite(value: Any) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(value)
    return None if value is None else float(value)
