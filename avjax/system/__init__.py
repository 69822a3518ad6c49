"""Holds what runs on devices: the network with its inputs and steps, and the layout of arrays."""

from avjax.system.system import BEFORE_PRECISION, System

__all__ = ['BEFORE_PRECISION', 'System']
