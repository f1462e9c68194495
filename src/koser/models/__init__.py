"""Networks, and the one file format in which a trained one is kept."""
