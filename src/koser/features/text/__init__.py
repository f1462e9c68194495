"""Speech into text, and text into numbers."""
