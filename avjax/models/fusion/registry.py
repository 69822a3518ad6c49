"""The names by which a config chooses a fusion."""

FUSIONS = {}


def fusion(name, needs=('visual', 'audio')):
  """Registers a fusion module under the name that `config.model.fusion.name` uses. needs: the modalities it cannot do without."""
  def register(module):
    FUSIONS[name], module.needs = module, needs
    return module
  return register
