"""From a reference to a model's input: `opener` (bytes), `decode` (pixels), `transform` (arrays).

Importing this package imports none of them, so that a verb pays only for what it uses.
"""
