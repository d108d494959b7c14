"""clipkit: a command-line toolbox for CLIP-style image-text models."""

__version__ = "0.1.0"
