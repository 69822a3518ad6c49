"""Converts published weights: python -m avjax.pretrained ARCHITECTURE --source FILE --output FILE

`config.init` takes the files that it writes.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import logging as absl_logging

import avjax
from avjax import command_line, errors, files
from avjax.errors import InputError

BUCKETS = ('--source', '--output')  # what may be on a bucket, gs://BUCKET/NAME

if TYPE_CHECKING:
  from avjax.weights import files as weight_files
  from avjax.weights import name_maps
  from avjax.weights.convert import Converted, Shapes


def main(argv: list[str]) -> None:
  """Converts weights that others have published into a safetensors file for config.init."""
  parser = argparse.ArgumentParser(prog='python -m avjax.pretrained', description=main.__doc__)
  parser.add_argument(
    'architecture',
    choices=('ir50', 'resnet50', 'vggish', 'model'),
    help="a tower, or `model`: a whole model that was trained with the predecessors' code; "
    '--config and --config.KEY=VALUE give its sizes',
  )
  parser.add_argument(
    '--source', required=True, help='.pth, .pt or .safetensors file, or TensorFlow checkpoint'
  )
  parser.add_argument('--output', required=True, help='.safetensors file to write')
  parser.add_argument('--config', help='for `model`: configs/rjca_author.py or configs/lfan.py')
  parser.add_argument(
    '--licence',
    help='licence of the weights, stored with them; by default the one known for the architecture',
  )
  arguments, overrides = parser.parse_known_args(argv[1:])
  absl_logging.set_verbosity(absl_logging.ERROR)
  if (arguments.architecture == 'model') != bool(arguments.config):
    raise InputError('`model` needs --config, such as configs/lfan.py; a tower takes none')
  unknown = [
    word for word in overrides if not (arguments.config and word.startswith(command_line.OVERRIDE))
  ]
  if unknown:
    raise InputError(f'unexpected argument {unknown[0]!r}')
  output = arguments.output
  files.check_free(output)
  # JAX is imported only now that the command line has been accepted.
  command_line.start_jax()
  from avjax.weights import files as weight_files
  from avjax.weights.convert import convert

  arguments.source = files.copy_of_file(arguments.source)
  source, shapes, published = read_source(arguments, overrides)
  try:
    converted = convert(source, shapes, published)
  except InputError as error:
    raise InputError(
      f'{arguments.source} does not hold {arguments.architecture}: {error}'
    ) from error
  if converted.mismatches:
    print('\n'.join(sorted(converted.mismatches)))
    kinds = collections.Counter(line.split()[0] for line in sorted(converted.mismatches))
    counts = ', '.join(f'{count} {kind}' for kind, count in kinds.items())
    raise InputError(
      f'{arguments.source} does not hold {arguments.architecture}: {counts}; each is listed above'
    )
  metadata = {
    'architecture': arguments.architecture,
    'source': pathlib.Path(arguments.source).name,
    'source_sha256': weight_files.sha256_of_source(arguments.source),
    'licence': arguments.licence or published.licence,
    'avjax': avjax.__version__,
  }
  weight_files.save(output, converted.arrays, metadata)
  weight_files.load(output)  # raises if what was written cannot be read
  print_summary(output, metadata, converted, len(shapes))


def read_source(
  arguments: argparse.Namespace, overrides: list[str]
) -> tuple[weight_files.Arrays, Shapes, name_maps.Published]:
  """Returns the arrays of the source, the shapes of our model, and what maps between them."""
  from avjax.weights import files as weight_files
  from avjax.weights import name_maps
  from avjax.weights.convert import shapes_of, shapes_of_model

  if arguments.architecture == 'model':
    config = command_line.load_config([f'--config={arguments.config}', *overrides])
    published, shapes = name_maps.of_model(config), shapes_of_model(config)
    return weight_files.read_published(arguments.source), shapes, published
  source = weight_files.read_published(arguments.source)
  name = arguments.architecture
  if name == 'vggish' and any(array.startswith('vggish/') for array in source):
    name = 'vggish_tensorflow'
  return source, shapes_of(arguments.architecture), name_maps.TOWERS[name]


def print_summary(
  output: str, metadata: weight_files.Metadata, converted: Converted, wanted: int
) -> None:
  """Prints what was written, where it comes from, and what was left out.

  wanted: number of arrays of our model.
  """
  from avjax.weights.convert import format_names

  count = sum(x.size for x in converted.arrays.values())
  print(f'{output}: {metadata["architecture"]}, {len(converted.arrays)} arrays, {count:,} numbers')
  for name in ('source', 'source_sha256', 'licence'):
    print(f'{name:<14}{metadata[name]}')
  for name in format_names(converted.left_out):
    print(f'left out      {name}')
  fresh = wanted - len(converted.arrays)
  if fresh:
    print(
      f'not in it     {fresh} arrays of the projection to 512 features, '
      'which start from random values'
    )


def run() -> None:
  """Runs the console command avjax-pretrained."""
  errors.run_command(main, sys.argv, buckets=BUCKETS)


if __name__ == '__main__':
  run()
