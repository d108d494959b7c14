"""Models made of models: averages and sums of weights."""
