"""The published methods, one file each, grouped by what they do; here is what there is, as data.

`clipkit methods` lists it. Importing this imports no method.
"""

from clipkit.registry import Entry, Registry

DECISIONS = Registry(
    "decisions",
    Entry(
        "zeroshot",
        "clipkit.stages.zeroshot:predict",
        "Softmax over an image's similarity to each label's text (Radford et al., 2021).",
    ),
)

REGISTRIES = {registry.kind: registry for registry in (DECISIONS,)}
