"""One experiment, end to end: features, trainings, scores, and the folder they are left in."""
