"""Published weights on this machine: what is cached is used without asking the network, the rest is fetched once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipkit.errors import ClipkitError, first_line
from clipkit.models import listing


def weights(entry: dict[str, Any], shown: str) -> Path:
    """The file of a tag's published weights. Raises ClipkitError where it is neither here nor to be had."""
    if (path := listing.cached(entry)) is not None:
        return path
    source, names = listing.weights_file(entry)
    if names:
        return hub_file(source, names, shown)
    from open_clip import download_pretrained_from_url

    try:
        return Path(download_pretrained_from_url(source))
    except (OSError, RuntimeError) as error:
        raise _not_here(shown, source, "", error) from None


def repository(name: str) -> Path:
    """The folder of a hub repository with its open_clip_config.json and weights. Raises ClipkitError."""
    shown = f"hf-hub:{name}"
    config = hub_file(name, (listing.HUB_CONFIG,), shown)
    file = hub_file(name, listing.hub_names(), shown)
    if file.parent != config.parent:
        raise ClipkitError(
            f"{shown}: {file.name} and {config.name} in the cache are of two revisions",
            f"remove {file.parent.parent.parent}",
        )
    return config.parent


def hub_file(name: str, files: tuple[str, ...], shown: str) -> Path:
    """The first of some files of a hub repository. Raises ClipkitError where none is here or to be had."""
    if (path := listing.cached_in_hub(name, files)) is not None:
        return path
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    reason: Exception = FileNotFoundError()
    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(name, file))  # asked once: hf_hub_download tries for 20 s without a network
            return Path(hf_hub_download(name, file))
        except EntryNotFoundError as error:
            reason = error
        except Exception as error:  # whatever the network, the hub or a proxy comes up with
            raise _not_here(shown, name, file, error) from None
    raise _not_here(shown, name, files[0], reason)


def _not_here(shown: str, source: str, file: str, error: Exception) -> ClipkitError:
    reason = first_line(error)
    fetch = f"hf download {source} {file}" if file else source
    where = listing.hub_folder() if file else listing.url_folder()
    return ClipkitError(
        f"{shown} is not on this machine and could not be downloaded from {source}: {reason[:200]}",
        f"where there is a network: {fetch} (it is kept in {where}); or give a file: ARCH:path/to/checkpoint",
    )
