"""Published filters, as expressions over what scorers measured."""
