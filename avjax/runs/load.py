"""Windows -> one series per clip -> CCC. Also `python -m avjax.evaluate RUN [--split validation|test] [--report]`."""

import jax

from avjax import errors
from avjax.errors import one_line
from avjax.runs import folder as run_folder
from avjax.runs.checkpoint import Checkpoints
from avjax.system import step


def load_best(workdir):
  """Returns (config, model, variables, meta) of the best checkpoint of a run. InputError if it has none yet."""
  config = run_folder.read_config(workdir)
  try:
    model = step.make_model(config)
    shapes = jax.eval_shape(lambda: step.init_variables(config, model, config.seed))
  except (AttributeError, LookupError, TypeError) as error:  # a file that somebody has edited
    raise errors.InputError(f'{workdir}/config.json is no sound config of a run: {one_line(error)}') from error
  checkpoints = Checkpoints(workdir, read_only=True)
  restored = checkpoints.restore_best(lambda meta: shapes)
  checkpoints.close()
  return config, model, *restored
