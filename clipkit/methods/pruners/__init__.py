"""Which records of a set are worth keeping: a size is dealt out to clusters, then each cluster chooses."""
