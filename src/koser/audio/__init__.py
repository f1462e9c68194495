"""Sound in: reading, resampling and augmentation of speech; NumPy arrays and nothing heavier."""
