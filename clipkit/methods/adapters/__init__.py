"""Few-shot adapters: what a model learns of new classes from a few labelled images of each."""
