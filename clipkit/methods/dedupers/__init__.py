"""Which records stand for the same thing."""
