"""clipkit: a command-line toolbox for CLIP-style image-text models. From Python: `load`, `read`, `run`."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "read", "run"]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `import clipkit` costs nothing."""
    if name in ("load", "read", "run"):
        from clipkit import api

        return getattr(api, name)
    raise AttributeError(f"module 'clipkit' has no attribute {name!r}")
