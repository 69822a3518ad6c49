"""Registers what a config may name: towers, fusions and heads.

Each class declares the ranges of its arguments next to its code.
"""

from avjax import ranges


class Registry(dict):
  """Maps names to the module classes of one kind.

  key: the key of the config that chooses one, such as 'model.fusion.name'.
  """

  def __init__(self, key):
    super().__init__()
    self.key = key

  def register(self, name, **declared):
    """Returns a decorator for the class that a config chooses by this name.

    What is declared becomes an attribute of the class:
      ranges: {argument: avjax.ranges.Range or OneOf}, joined with those of its base class.
      needs: the modalities that it must have, by default both.
      groups: for a tower, the unfreezing groups {group: path patterns} that hold where the config
        has none.
    """

    def decorate(module):
      declared['ranges'] = getattr(module, 'ranges', {}) | declared.get('ranges', {})
      declared.setdefault('needs', getattr(module, 'needs', ('visual', 'audio')))
      declared.setdefault('groups', getattr(module, 'groups', {}))
      if name in self:
        raise ValueError(f'{self.key} {name!r} is registered twice: {self[name]} and {module}')
      for attribute, value in declared.items():
        setattr(module, attribute, value)
      self[name] = module
      return module

    return decorate

  def choose(self, name):
    """Returns the class of this name; InputError, with the nearest name, where there is none."""
    ranges.OneOf(tuple(self)).check(self.key, name)
    return self[name]


FUSIONS = Registry('model.fusion.name')
HEADS = Registry('model.head.name')
VISUAL_TOWERS = Registry('model.visual.tower')
AUDIO_TOWERS = Registry('model.audio.tower')
