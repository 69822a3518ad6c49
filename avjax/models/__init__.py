"""Flax Linen models. They import no config, no data and no optimizer."""
