"""Training: examples, batches, a model that learns, the loop, and the folder that a run is."""
