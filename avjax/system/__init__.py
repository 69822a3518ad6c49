"""Holds what runs on devices: the network with its inputs and steps, and the layout of arrays."""

from avjax.system.system import System, precision_of

__all__ = ['System', 'precision_of']
