"""What there is to learn from: corpora, manifests, splits."""
