"""Turns the folder of a data set into checked records, before any training.

Of avjax it uses errors, files, data and media, so it loads no JAX. TensorFlow is imported only when
records are written or counted.
"""
