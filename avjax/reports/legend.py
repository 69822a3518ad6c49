"""Defines the words and colours with which figures and pages show targets and gates."""

from avjax.targets import TARGETS

# Of texts, lines and grids in PNG files; pages have CSS variables instead.
BLACK, GREY, STAGE_LINE, GRID = '#000000', '#555555', '#aaaaaa', '#eeeeee'
MODALITIES = {'visual': 'face', 'audio': 'voice'}
# Gates that do not weigh recursions: {name: (what the gate weighs, its columns)}.
COLUMNS = {
  'modality': ('face and voice', ['face', 'voice']),
  'expert': ('experts', ['face attends to voice', 'voice attends to face']),
}


def target_style():
  """Returns CSS rules with the colours and the line style of each target."""
  rules = []
  for name, target in TARGETS.items():
    line = {'-': 'solid', '--': 'dashed'}[target.line]
    rules += [
      f':root {{ --{name}: {target.colour}; }}',
      f'@media (prefers-color-scheme: dark) {{ :root {{ --{name}: {target.dark_colour}; }} }}',
      f'.key.{name} {{ border-color: var(--{name}); border-top-style: {line}; }}',
    ]
  return '\n'.join(rules) + '\n'


def _parse(name):
  """Splits the name of a gate: 'arousal/audio_2' -> ('arousal', 'audio', '2').

  The names are those of avjax.models.fusion. The run stands first where two runs predict together;
  the level, last, is '' for the only gate of a modality, '1', '2', ... between two neighbours of
  HGRJCA's hierarchy, and 'final' for its last gate.
  """
  run, _, gate = name.rpartition('/')
  modality, _, level = gate.partition('_')
  return run, modality, level


def describe_gate(name, columns):
  """Describes a gate and each of its columns in words.

  Args:
    name: of the gate, such as 'audio'.
    columns: how many columns the gate has.

  Returns (gate, words): for ('audio', 3), 'voice' and ['unattended', 'recursion 1', 'recursion 2'];
  for ('modality', 2), 'face and voice' and ['face', 'voice'].
  """
  run, modality, level = _parse(name)
  prefix = f'{run}, ' if run else ''
  if modality in COLUMNS:
    gate, words = COLUMNS[modality]
    return prefix + gate, words
  recursions = [f'recursion {t}' if t else 'unattended' for t in range(columns + 1)]
  if level == 'final':
    gate, words = ' last gate', [f'gated {word}' for word in recursions[1:]]
  elif level:
    gate = f' gate {level}'
    words = [f'recursion {t}' if t else 'unattended' for t in (int(level) - 1, int(level))]
  else:
    gate, words = '', ['unattended', 'attended'] if columns == 2 else recursions[:columns]
  return f'{prefix}{MODALITIES.get(modality, modality)}{gate}', words


def weighs_prediction(name):
  """Tells whether the output of a gate goes into the prediction rather than into another gate."""
  return _parse(name)[2] in ('', 'final')


def sort_gates(names):
  """Sorts the names of gates as figures show them: by run, face before voice, then by level."""
  runs = list(dict.fromkeys(_parse(name)[0] for name in names))

  def key(name):
    run, modality, level = _parse(name)
    known = list(MODALITIES)
    return runs.index(run), known.index(modality) if modality in known else len(known), level

  return sorted(names, key=key)
