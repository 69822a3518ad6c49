"""What runs on devices: the network with its inputs and steps, and how arrays are laid out over devices."""

from avjax.system.system import System

__all__ = ['System']
