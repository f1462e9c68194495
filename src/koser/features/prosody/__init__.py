"""How something is said, in numbers that have names: pitch, voice, loudness, spectrum, rhythm."""
