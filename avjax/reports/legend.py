"""A page of one video: it plays, and valence, arousal and the gates run along. One HTML file that needs nothing else."""


from avjax.targets import TARGETS
COLOURS = {name: target.colour for name, target in TARGETS.items()}
LINE_STYLES = {'valence': '-', 'arousal': '--'}
MODALITIES = {'visual': 'face', 'audio': 'voice'}


def gate_words(name, columns):
  """Whose gate this is, and what each of its columns weighs: 'audio', 3 -> 'voice', ['unattended', 'recursion 1', 'recursion 2'].

  Names are those of avjax.models.fusion; 'valence/audio' is the gate of one of two runs.
  """
  run, _, own = name.rpartition('/')
  modality, _, level = own.partition('_')
  recursions = ['unattended', *(f'recursion {t}' for t in range(1, columns + 1))]
  if level == 'final':
    gate, words = ' last gate', [f'gated {word}' for word in recursions[1:]]
  elif level:  # of HGRJCA: between two neighbours
    gate, words = f' gate {level}', [f'recursion {t}' if t else 'unattended' for t in (int(level) - 1, int(level))]
  else:
    gate, words = '', ['unattended', 'attended'] if columns == 2 else recursions[:columns]
  return f'{run}, ' * bool(run) + MODALITIES[modality] + gate, words


def decides(name):
  """Whether a gate weighs what goes into the prediction, not into another gate."""
  return name.rpartition('/')[2].partition('_')[2] in ('', 'final')


def in_order(gates):
  """The names of gates as people read them: by run, the face before the voice, a last gate last."""
  runs = list(dict.fromkeys(name.rpartition('/')[0] for name in gates))
  return sorted(gates, key=lambda name: (runs.index(name.rpartition('/')[0]), 'audio' in name.rpartition('/')[2], name))
