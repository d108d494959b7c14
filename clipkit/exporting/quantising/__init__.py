"""8 bits: networks with small weights, with small activations too, and what stands in the way of either."""
