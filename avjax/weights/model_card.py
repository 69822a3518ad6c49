"""The README.md of an exported model, made from the JSON of its run alone."""

from avjax import files
from avjax.config import flatten
from avjax.models.audio_visual import FEATURES
from avjax.weights import files as weight_files


def seen(model):
  """'a face and a voice', or the one that a model uses."""
  return ' and '.join(name for name, modality in (('a face', 'visual'), ('a voice', 'audio')) if model[modality]['tower'] != 'none')


def towers(config):
  """A line for face and voice each: what takes them in."""
  m = config['model']
  for modality, name in (('visual', 'face'), ('audio', 'voice')):
    tower = m[modality]['tower']
    if tower == 'none':
      yield f'- The {name} is not used.'
    elif tower.startswith(FEATURES):
      width = config['data']['features'][tower.removeprefix(FEATURES)]
      yield f'- Of the {name}, features of another backbone: {tower}, {width} numbers a frame.'
    elif modality == 'visual':
      yield (f'- Face tower: {tower}, {m["visual"][tower]["features"]} features, crops of {config["crop"]} pixels out of '
             f'{config["data"]["face"]}.')
    else:
      yield f'- Audio tower: VGGish, {m["audio"]["features"]} features, windows of 96 log-mel rows.'


def temporal(settings):
  """A line for each modality with a temporal part."""
  for modality, name in (('visual', 'face'), ('audio', 'voice')):
    if settings[modality]:
      yield (f'- Temporal convolutions of the {name}: {list(settings[modality])} channels, kernel '
             f'{list(settings["kernels"]) or settings["kernel"]}.')


def model_card(workdir, description):
  """Markdown text. description: what export writes as model.json. InputError where a string would forge more than text."""
  config, versions = description['config'], description['versions']
  for name, values in (('config.json', config), ('versions.json', versions)):
    weight_files.check_printable(workdir / name, {key: str(value) for key, value in flatten(values).items()})
  results_path = workdir / 'results_validation.json'
  results = files.read_json(results_path) if results_path.exists() else {}
  of_this = (results.get('best_epoch'), results.get('fold')) == (description['best_epoch'], config['fold'])
  m = config['model']
  lines = [
      f'# {m["fusion"]["name"]} for {" and ".join(config["targets"])}, fold {config["fold"]}', '',
      'A model of continuous audio-visual emotion recognition, trained with avjax: for each frame of a clip it predicts '
      f'{" and ".join(config["targets"])} between -1 and 1 from {seen(m)}.', '',
      '## Results', '']
  if of_this and results.get('frames'):
    lines += ['| validation partition | CCC | PCC | RMSE |', '|---|---|---|---|']
    lines += [f'| {target} | ' + ' | '.join(f'{results[target][name]:.3f}' for name in ('ccc', 'pcc', 'rmse')) + ' |'
              for target in config['targets']]
    lines += ['', f'{results["frames"]:,} annotated frames of {results["clips"]:,} clips that were not trained on. The best '
              f'epoch ({description["best_epoch"] + 1}) was chosen on the same partition, which flatters these numbers.']
  else:
    lines += ['The run has no results of this state yet. Its validation CCC while training: '
              f'{description["validation_ccc"]:.3f}, epoch {description["best_epoch"] + 1}.']
  if config['smooth'] > 1:
    lines += [f'These are of predictions that are averaged over {config["smooth"]} frames, which the program here does not do.']
  init = versions.get('init') or {}
  lines += [
      '', '## What it is', '',
      *towers(config),
      *temporal(m['temporal']),
      f'- Fusion: {", ".join(f"{key} {value}" for key, value in m["fusion"].items())}; head: {m["head"]["name"]}.',
      f'- Windows of {config["data"]["length"]} frames; seed {config["seed"]}; batches of {config["batch_size"]}.',
      '', '## What it started from', '']
  lines += [f'- {part}: {origin["architecture"]} from {origin["source"]}, SHA-256 {origin["source_sha256"]}; licence: '
            f'{origin["licence"]}.' for part, origin in init.items()]
  if config.get('resume'):
    lines += ['- The state of another run (`config.resume`).']
  if not init and not config.get('resume'):
    lines += ['- Random weights.']
  lines += [
      '', '## How to run it', '', 'Without avjax, with jax, numpy and safetensors:', '', '```python',
      'import pathlib', 'import jax.export', 'import safetensors.numpy', '',
      "model = jax.export.deserialize(bytearray(pathlib.Path('model.stablehlo').read_bytes()))",
      "weights = safetensors.numpy.load_file('weights.safetensors')",
      f'output = model.call(weights, {", ".join(name.split("/")[-1] for name in description["inputs"])})',
      f"output['prediction']  # (clips, {config['data']['length']}, {len(config['targets'])}): {', '.join(config['targets'])}",
      '```', '']
  lines += [f'- `{name}`: {text}' for name, text in description['inputs'].items()]
  lines += [
      '', '## Limits', '',
      '- The licence of the data it was trained on, and of the weights it started from, extends to these weights; Aff-Wild2 is '
      'for research only.',
      '- Predictions are apparent emotion as annotators rated it, not what a person feels. They are not fit for decisions '
      'about people.',
      '- Black faces (none found) and silence are predicted on like any other frame.', '',
      f'Made with avjax {versions["avjax"]}, jax {versions["jax"]}, flax {versions["flax"]}. Records: SHA-256 '
      f'{versions["records"]}.', '']
  return '\n'.join(lines)
