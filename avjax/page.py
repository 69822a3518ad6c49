"""A page of one video: it plays, and valence, arousal and the gates run along. One HTML file that needs nothing else."""

import base64
import html
import json
import pathlib
import re

import numpy as np

import avjax

BLOCK = 3 << 18  # bytes of video at a time: a multiple of 3, so that the base64 of a block ends without padding
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


def fill(template, **values):
  """A template of this package, 'page.html', with the marks {{name}} replaced by values, which are HTML."""
  values['style'] = _read('style.html')
  return re.sub(r'\{\{(\w+)\}\}', lambda mark: values[mark[1]], _read(template))


def _read(name):
  return pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')


def escaped_json(value):
  """JSON that can stand in a script element, whatever its strings hold; in pieces, so that long series are not there as text all at once.

  value: dicts, lists, strings and numbers; an array (n,) is a list of its numbers, null for NaN.
  """
  if isinstance(value, dict):
    yield '{'
    for i, (name, item) in enumerate(value.items()):
      yield from (',' * bool(i), *escaped_json(name), ':')
      yield from escaped_json(item)
    yield '}'
    return
  if isinstance(value, list):
    yield '['
    for i, item in enumerate(value):
      yield ',' * bool(i)
      yield from escaped_json(item)
    yield ']'
    return
  if isinstance(value, np.ndarray):
    value, missing = value.tolist(), np.flatnonzero(np.isnan(value))
    for i in missing:
      value[i] = None
  text = json.dumps(value, allow_nan=False, separators=(',', ':'))
  yield text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def items(notes):
  """Notes as the items of an HTML list."""
  return ''.join(f'<li>{html.escape(note)}</li>' for note in notes)


def write(path, title, video, frames, times, targets, prediction, face_found, audio_present, gates, notes):
  """Writes the page of one video.

  video: path of an H.264/AAC MP4 whose time 0 is times[0]. frames (n,) from 1, times (n,) in s, prediction (n,T) in [-1, 1] of
  targets (T names), NaN where nothing was seen; face_found and audio_present (n,) bool; gates {name: (n,K)}, maybe none, NaN
  where nothing was seen; notes: strings that stand under the title.
  """
  times = np.asarray(times, np.float64)
  described = {name: gate_words(name, np.shape(gates[name])[1]) for name in in_order(gates)}
  data = {
      'frames': np.asarray(frames), 'times': times.round(4),
      'interval': round(float(np.median(np.diff(times))), 6) if len(times) > 1 else 0.04,
      'targets': {target: np.asarray(series, np.float64).round(6) for target, series in zip(targets, np.transpose(prediction))},
      'face': np.asarray(face_found).astype(int), 'sound': np.asarray(audio_present).astype(int),
      'gates': [{'of': of, 'words': words, 'decides': decides(name),
                 'scores': [np.asarray(column, np.float64).round(4) for column in np.transpose(gates[name])]}
                for name, (of, words) in described.items()]}
  place = '<data>'  # which no text can hold that is escaped
  before, after = fill('page.html', title=html.escape(title), notes=items(notes), data=place, version=avjax.__version__).split(place)
  with open(path, 'wb') as file, open(video, 'rb') as film:
    file.write(before.encode('utf-8', 'replace'))  # a file name may hold what UTF-8 cannot
    for piece in escaped_json(data):
      file.write(piece.encode())
    file.write(after.encode())
    while block := film.read(BLOCK):
      file.write(b'<script type="text/plain" class="media">' + base64.b64encode(block) + b'</script>\n')
