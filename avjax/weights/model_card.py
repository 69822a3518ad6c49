"""Writes the README.md of an exported model, only from the JSON files of its run."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from avjax import files
from avjax.config import flatten
from avjax.data.records import WINDOW_ROWS
from avjax.evaluation.series import smoothing_widths
from avjax.models.audio_visual import FEATURES
from avjax.reports.markdown import as_text
from avjax.runs import folder as run_folder
from avjax.system import precision_of
from avjax.targets import count_outputs, criterion, metric_names, value_range
from avjax.weights import files as weight_files


def input_words(model: dict) -> str:
  """Returns 'faces and audio', or the one that a model uses."""
  words = {'visual': 'faces', 'audio': 'audio'}
  return ' and '.join(
    word for modality, word in words.items() if model[modality]['tower'] != 'none'
  )


def system_lines(config: dict) -> list[str]:
  """Returns a line with the system of the config, and what it means that it is a reconstruction."""
  system = config.get('system', '')  # runs of version 0.2.0 have none
  lines = [f'- System: {system}.'] if system else []
  if 'reconstruction' in system:
    lines.append(
      '- A reconstruction was built from an abstract or a report, because its authors have '
      'published no code. Its sizes are guesses, and its results are not theirs.'
    )
  return lines


def towers(config: dict) -> Iterator[str]:
  """Yields a line each for visual and audio: the tower or the features that the model takes."""
  m = config['model']
  for modality in ('visual', 'audio'):
    name, tower = modality.capitalize(), m[modality]['tower']
    if tower == 'none':
      yield f'- {name}: not used.'
    elif tower.startswith(FEATURES):
      width = config['data']['features'][tower.removeprefix(FEATURES)]
      yield f'- {name}: features of another backbone, {tower}, {width} numbers per frame.'
    elif modality == 'visual':
      yield (
        f'- Visual tower: {tower}, {m["visual"][tower]["features"]} features, '
        f'crops of {config["crop"]} pixels out of {config["data"]["face"]}.'
      )
    else:
      yield (
        f'- Audio tower: VGGish, {m["audio"]["features"]} features, '
        f'windows of {WINDOW_ROWS} log-mel rows.'
      )


def temporal(settings: dict) -> Iterator[str]:
  """Yields a line for each modality that has temporal convolutions."""
  for modality in ('visual', 'audio'):
    if settings[modality]:
      yield (
        f'- Temporal convolutions, {modality}: {list(settings[modality])} channels, kernel '
        f'{list(settings["kernels"]) or settings["kernel"]}.'
      )


def model_card(workdir: pathlib.Path, description: dict[str, Any]) -> str:
  """Returns the Markdown text of a model card.

  description: what model.json says. Raises InputError where a string of the run's files could
  forge more than text.
  """
  config, versions = description['config'], description['versions']
  for name, values in ((run_folder.CONFIG, config), (run_folder.VERSIONS, versions)):
    texts = {key: str(value) for key, value in flatten(values).items()}
    weight_files.check_printable(workdir / name, texts)
  description = as_text(description)
  config, versions = description['config'], description['versions']
  m, targets = config['model'], ' and '.join(config['targets'])
  precision = precision_of(config)
  lowest, highest = value_range(config['targets'])
  fusion = ', '.join(f'{key} {value}' for key, value in m['fusion'].items())
  lines = [
    f'# {m["fusion"]["name"]} for {targets}, fold {config["fold"]}',
    '',
    'A model of continuous audio-visual emotion recognition, trained with avjax: for each frame '
    f'of a video it predicts {targets} between {lowest:g} and {highest:g} from {input_words(m)}.',
    '',
    '## Results',
    '',
    *result_lines(workdir, description),
    '',
    '## What it is',
    '',
    *system_lines(config),
    *towers(config),
    f'- Precision: towers in {precision["towers"]}, the rest in {precision["rest"]}.',
    *temporal(m['temporal']),
    f'- Fusion: {fusion}; head: {m["head"]["name"]}.',
    f'- Windows of {config["data"]["length"]} frames; seed {config["seed"]}; '
    f'batches of {config["batch_size"]}.',
    '',
    '## What it started from',
    '',
    *origin_lines(config, versions),
    '',
    '## How to run it',
    '',
    *usage_lines(description),
    '',
    '## Limits',
    '',
    '- The licence of the data it was trained on, and of the weights it started from, extends to '
    'these weights. That of Aff-Wild2, for one, allows research only.',
    '- Predictions are apparent emotion as annotators rated it, not what a person feels. They '
    'are not fit for decisions about people.',
    '- Frames without a face (black) or without sound are predicted on like any other.',
    '',
    f'Made with avjax {versions["avjax"]}, jax {versions["jax"]}, flax {versions["flax"]}. '
    f'Records: SHA-256 {versions["records"]}.',
    '',
  ]
  return '\n'.join(lines)


def result_lines(workdir: pathlib.Path, description: dict[str, Any]) -> list[str]:
  """Returns the scores on the validation split, if the run has results of the exported state."""
  config, epoch = description['config'], description['best_epoch']
  path = workdir / run_folder.results_name('validation')
  results = files.read_json(path) if path.exists() else {}
  of_this_state = (results.get('best_epoch'), results.get('fold')) == (epoch, config['fold'])
  if of_this_state and results.get('frames'):
    metrics = metric_names(config['targets'])
    heads = ['validation partition', *(metric.upper() for metric in metrics)]
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for target in config['targets']:
      found = results[target]
      scores = ' | '.join(f'{found[name]:.3f}' if name in found else '' for name in metrics)
      lines.append(f'| {target} | {scores} |')
    lines += [
      '',
      f'{results["frames"]:,} annotated frames of {results["clips"]:,} '
      f'clip{"" if results["clips"] == 1 else "s"} that were '
      f'not trained on. The best epoch ({epoch + 1}) was chosen on the same partition, '
      'which flatters these numbers.',
    ]
  else:
    metric = criterion(config['targets'])
    lines = [
      f'The run has no results of this state yet. Its validation {metric.upper()} while training: '
      f'{description[f"validation_{metric}"]:.3f}, epoch {epoch + 1}.'
    ]
  widths = smoothing_widths(config['smooth'], config['targets'])
  if max(widths) > 1:
    counts = [f'{n} frame{"s" * (n > 1)}' for n in widths]
    each = ', '.join(f'{n} ({name})' for n, name in zip(counts, config['targets'], strict=True))
    lines.append(
      'These are of predictions that are averaged over '
      f'{counts[0] if len(set(counts)) == 1 else each}, which the program below does not do.'
    )
  return lines


def origin_lines(config: dict, versions: dict) -> list[str]:
  """Returns a line for each file or run that the weights started from."""
  init = versions.get('init') or {}
  lines = [
    f'- {part}: {origin["architecture"]} from {origin["source"]}, '
    f'SHA-256 {origin["source_sha256"]}; licence: {origin["licence"]}.'
    + (f' Changed: {origin["changes"]}.' if 'changes' in origin else '')
    for part, origin in init.items()
  ]
  if config.get('resume'):
    lines.append('- Another run (`config.resume`).')
  return lines or ['- Random weights.']


def usage_lines(description: dict[str, Any]) -> list[str]:
  """Returns a program that runs the model, and its inputs."""
  config = description['config']
  names = [re.sub(r'[^\w/]', '_', name) for name in description['inputs']]  # for code
  inputs = ', '.join(name.split('/')[-1] for name in names)
  shape = f'(clips, {config["data"]["length"]}, {count_outputs(config["targets"])})'
  return [
    'Without avjax, with jax, numpy and safetensors:',
    '',
    '```python',
    'import pathlib',
    'import jax.export',
    'import safetensors.numpy',
    '',
    "model = jax.export.deserialize(bytearray(pathlib.Path('model.stablehlo').read_bytes()))",
    "weights = safetensors.numpy.load_file('weights.safetensors')",
    f'output = model.call(weights, {inputs})',
    f"output['prediction']  # {shape}: {', '.join(config['targets'])}",
    '```',
    '',
    *(
      f'- `{name}`: {text}'
      for name, text in zip(names, description['inputs'].values(), strict=True)
    ),
  ]
