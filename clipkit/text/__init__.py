"""Texts that stand for classes: labels, templates, and the classifier made of them."""
