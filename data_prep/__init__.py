"""Offline data preparation: makes checked records from a data set.

It uses avjax's errors, files, data and media, and imports no JAX; TensorFlow is imported late, to
write the records.
"""
