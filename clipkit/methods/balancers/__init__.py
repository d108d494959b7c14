"""MetaCLIP's balancing: which entries a caption contains, how often each occurs, and who stays."""
