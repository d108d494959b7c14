"""Tar shards as webdataset writes them: members next to each other with one key are one sample."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from clipkit import tars
from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.stream.sources.context import MAX_SIDECAR, Item, Reading
from clipkit.stream.sources.folders import IMAGE_SUFFIXES, merge_fields
from clipkit.stream.sources.places import member_key, nfc, shard_stem

SPARSE = "sparse files"
_READ = ("json", "txt", "cls")  # what is read here; images are only named


@dataclass
class Sample:
    """What a shard has of one key."""

    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)  # by extension, as in the shard

    @property
    def end(self) -> int:
        """Where its last member ends, in bytes of the shard."""
        last = next(reversed(self.members.values()))
        return last.offset_data + last.size

    def image(self) -> str | None:
        """The name of the member that is the image: a plain extension (`jpg`) before a longer one (`crop.jpg`)."""
        images = [ext for ext in self.members if "." + ext.rpartition(".")[2] in IMAGE_SUFFIXES]
        return self.members[min(images, key=lambda ext: "." in ext)].name if images else None

    def sidecars(self) -> dict[str, tarfile.TarInfo]:
        """What is read besides, by extension."""
        return {ext: member for ext, member in self.members.items() if _plain(ext) in _READ}


def read_tar(reading: Reading) -> Iterator[Item]:
    """One record a sample: `image` names the member, `.txt` is its text, `.json` its fields, `.cls` its label.

    Links, devices and names that lead out of the shard are left out, and counted in a note. What a cut-off shard
    still holds is given, then a ClipkitError is raised.
    """
    shown = reading.input.shown
    if not shown.endswith(".tar"):
        raise UsageError(f"{shown} is a tar, but isn't called so", "rename it: records refer to SHARD.tar#MEMBER")
    reference = reading.places.reference_to(reading.input.path)
    left_out: Counter[str] = Counter()
    try:
        with open(reading.input.path, "rb") as file:
            for sample in samples(file, os.fstat(file.fileno()).st_size, left_out):
                reading.number += 1
                reading.bytes_read = sample.end
                yield record(reading, sample, reference, lambda member: _read(file, member))
    except tars.BROKEN as error:
        hint = "what could be read was used"
        raise ClipkitError(
            f"the tar is broken or cut off: {str(error) or type(error).__name__}", hint, where=shown
        ) from None
    except OSError as error:
        raise ClipkitError(f"cannot be read: {error.strerror or error}", where=shown) from None
    finally:
        if left_out:
            said = ", ".join(f"{what} ({count})" for what, count in left_out.most_common(5))
            reading.note(f"{shown}: left out {said}")


def samples(file: BinaryIO, size: int, left_out: Counter[str]) -> Iterator[Sample]:
    """The samples of a shard of `size` bytes that hold something that is read here, in order, by their headers alone.

    After the last whole one raises one of `tars.BROKEN` if the shard is cut off. left_out: counts what is not given.
    """
    for sample in _samples(file, size, left_out):
        if sample.image() is None and not sample.sidecars():
            left_out[f"samples with only .{next(iter(sample.members))}"] += 1
        else:
            yield sample


def _samples(file: BinaryIO, size: int, left_out: Counter[str]) -> Iterator[Sample]:
    sample: Sample | None = None
    broken: Exception | None = None
    try:
        for member in tars.members(file):
            split = _usable(member, left_out)
            torn = tars.is_plain_file(member) and member.offset_data + member.size > size
            if sample is not None and _is_other(sample, split, torn):
                yield sample
                sample = None
            if torn:
                raise tarfile.ReadError("its last member is not all there")
            if split is not None:
                sample = sample or Sample(split[0])
                sample.members[split[1]] = member
    except tars.BROKEN as error:
        broken = error
    if sample is not None:
        yield sample
    if broken is not None:
        raise broken


def _is_other(sample: Sample, split: tuple[str, str] | None, torn: bool) -> bool:
    """Whether a member of this key and extension (None: not to be used) shows that the sample before it ended."""
    if split is None:
        return torn
    return split[0] != sample.key or split[1] in sample.members


def _usable(member: tarfile.TarInfo, left_out: Counter[str]) -> tuple[str, str] | None:
    """Key and extension of a member that may be read, else None."""
    if member.isdir():
        return None
    if not tars.is_plain_file(member):
        left_out[SPARSE if member.issparse() else "links and special files"] += 1
        return None
    if member.name.startswith("/") or ".." in member.name.split("/"):
        left_out["names that lead out of the shard"] += 1
        return None
    return member_key(member.name)


def record(reading: Reading, sample: Sample, reference: str, content: Callable[[tarfile.TarInfo], bytes]) -> Item:
    """The record of a sample. reference: to the shard. content: the bytes of one of `Sample.sidecars`, of the first
    16 MiB and one more where there are more."""
    where = f"{reading.input.shown}#{sample.key}"
    fields: dict[str, object] = {"id": nfc(f"{shard_stem(reading.input.path)}/{sample.key}")}
    image = sample.image()
    if image is not None:
        fields["image"] = f"{reference}#{image}"
    try:
        parts = {_plain(ext): _unpacked(ext, content(member)) for ext, member in sample.sidecars().items()}
        merged = merge_fields(reading, fields, json=parts.get("json"), text=parts.get("txt"))
        if "cls" in parts:
            merged["label"] = parts["cls"].decode("utf-8").strip()
        return reading.made(merged, where=where)
    except UnicodeDecodeError:
        return reading.bad("bad-sidecar", "its .cls is not UTF-8", text=where.encode(), where=where)
    except RecordError as error:
        shown = where.encode("utf-8", "backslashreplace")
        return reading.bad(error.kind, error.message, error.hint, text=shown, where=shown.decode())


def _plain(extension: str) -> str:
    return extension.removesuffix(".gz")


def _read(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(min(member.size, MAX_SIDECAR + 1))


def _unpacked(extension: str, data: bytes) -> bytes:
    """A sidecar's bytes, unpacked if it is a .gz. Raises RecordError (`bad-sidecar`)."""
    if extension.endswith(".gz"):
        try:
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_SIDECAR + 1)
        except (EOFError, zlib.error, OSError) as error:
            raise RecordError("bad-sidecar", f"its .{extension} cannot be unpacked: {error}") from None
    if len(data) > MAX_SIDECAR:
        raise RecordError("bad-sidecar", f"its .{extension} is larger than {MAX_SIDECAR >> 20} MiB")
    return data
