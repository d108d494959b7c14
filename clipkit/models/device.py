"""Which device runs a model, and with how many bits."""

from __future__ import annotations

from dataclasses import dataclass

from clipkit.errors import ClipkitError, UsageError

PRECISIONS = {"cpu": ("f32", "bf16"), "cuda": ("bf16", "f16", "f32"), "mps": ("f16", "f32")}  # the default first
CPU_IMAGES_A_SECOND = 10  # ViT-B-32 on one core: an order of magnitude, for `doctor`


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of `clipkit doctor`: what was found, and what it means."""

    name: str
    value: str
    advice: str = ""


def choose(device: str = "auto") -> str:
    """The torch device: `cuda` before `mps` before `cpu`. Raises ClipkitError where the one asked for isn't there."""
    check_name(device)
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cuda" and not cuda:
        raise ClipkitError("cuda was asked for, but " + _why_no_cuda(), "use --device cpu, or leave --device out")
    if number and int(number) >= (found := torch.cuda.device_count()):
        raise ClipkitError(
            f"{device} was asked for, but there {'is' if found == 1 else 'are'} {found} (counted from 0)"
        )
    if kind == "mps" and not mps:
        built = torch.backends.mps.is_built()
        why = "this Mac or its macOS has no Metal support for it" if built else "this torch is built without it"
        raise ClipkitError(f"mps was asked for, but {why}", "use --device cpu, or leave --device out")
    return device


def check_name(device: str) -> None:
    """Raise UsageError for what is no device's name, whether or not there is one. Needs no torch."""
    kind, _, number = device.partition(":")
    if device != "auto" and (kind not in PRECISIONS or (number and not (kind == "cuda" and number.isdecimal()))):
        raise UsageError(f"no device {device!r}", "one of auto, cuda, cuda:N, mps, cpu")


def choose_precision(device: str, precision: str = "auto") -> str:
    """`f32` on a CPU, 16 bits on a GPU (`bf16` where it has it). Raises UsageError for what the device cannot do."""
    import torch

    kind = device.partition(":")[0]
    allowed = PRECISIONS[kind]
    if precision == "auto":
        return "f16" if kind == "cuda" and not torch.cuda.is_bf16_supported() else allowed[0]
    if precision not in allowed:
        raise UsageError(f"{precision} does not run on {kind}", f"there: {', '.join(allowed)}")
    return precision


def facts() -> list[Fact]:
    """What `clipkit doctor` says of devices. Imports torch."""
    import os

    import torch

    found = [Fact("torch", torch.__version__)]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            found.append(Fact(f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB"))
    else:
        found.append(Fact("cuda", f"not used: {_why_no_cuda()}"))
    if torch.backends.mps.is_built():
        found.append(Fact("mps", "found" if torch.backends.mps.is_available() else "not available here"))
    if choose() == "cpu":
        expected = CPU_IMAGES_A_SECOND * (
            os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1
        )
        found.append(
            Fact("speed", f"no GPU used: about {expected} images/s expected with ViT-B-32", "`--model lite` is faster")
        )
    return found


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without it"
    return "no GPU or driver was found"
