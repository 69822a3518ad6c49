"""Continuous audio-visual emotion recognition in JAX: valence and arousal, frame by frame, from a face and a voice."""

__version__ = '0.1.0'
