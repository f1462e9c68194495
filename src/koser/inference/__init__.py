"""What a trained system is for: emotions out of files, folders and arrays."""
