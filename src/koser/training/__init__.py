"""How networks learn: batches, and one loop for all of them."""
