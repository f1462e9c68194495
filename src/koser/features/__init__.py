"""Sound into numbers: front-ends, and the store that keeps what they make."""
