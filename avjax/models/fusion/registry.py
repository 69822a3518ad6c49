"""The names by which a config chooses a fusion."""

FUSIONS = {}


def fusion(name):
  """Registers a fusion module under the name that `config.model.fusion.name` uses."""
  def register(module):
    FUSIONS[name] = module
    return module
  return register
