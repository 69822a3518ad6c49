"""Offline data preparation: an Aff-Wild2 folder in, checked records out. Imports neither JAX nor avjax."""
