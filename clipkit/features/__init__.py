"""Vectors at rest: the cache, the feature store, inline vectors, and the embedder that fills them."""
