"""Pretrained speech encoders: waveforms in, hidden states of every layer out."""
