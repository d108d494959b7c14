"""X-Robots-Tag: what a server says its images must not be used for."""

from __future__ import annotations

from collections.abc import Iterable, Set

# noai and noimageai are DeviantArt's, the others the search engines'; `none` stands for noindex, nofollow.
REFUSED = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_WITH_A_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def refusal(headers: Iterable[str], agents: Set[str]) -> str | None:
    """The first directive among the values of X-Robots-Tag that forbids use, or None.

    agents: our names, in lower case. A directive is for everybody unless a name comes before it: `googlebot: noindex`
    is not for us; that name holds to the end of its header.
    """
    for header in headers:
        ours = True
        for piece in header.lower().split(","):
            name, colon, rest = (part.strip() for part in piece.partition(":"))
            directive = name
            if colon and name not in _WITH_A_VALUE:
                ours, directive = name in agents or name == "*", rest
            if ours and directive in REFUSED:
                return directive
    return None
