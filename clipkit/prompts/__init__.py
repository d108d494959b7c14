"""Prompts for language models: recipes that can be printed and changed, and what is read out of answers."""
