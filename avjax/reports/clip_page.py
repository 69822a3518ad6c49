"""A page of one video: it plays, and valence, arousal and the gates run along. One HTML file that needs nothing else."""

import base64
import html

import numpy as np

import avjax
from avjax.reports import legend, templates

BLOCK = 3 << 18  # bytes of video at a time: a multiple of 3, so that the base64 of a block ends without padding


def write(path, title, video, frames, times, targets, prediction, face_found, audio_present, gates, notes):
  """Writes the page of one video.

  video: path of an H.264/AAC MP4 whose time 0 is times[0]. frames (n,) from 1, times (n,) in s, prediction (n,T) in [-1, 1] of
  targets (T names), NaN where nothing was seen; face_found and audio_present (n,) bool; gates {name: (n,K)}, maybe none, NaN
  where nothing was seen; notes: strings that stand under the title.
  """
  times = np.asarray(times, np.float64)
  described = {name: legend.gate_words(name, np.shape(gates[name])[1]) for name in legend.in_order(gates)}
  data = {
      'frames': np.asarray(frames), 'times': times.round(4),
      'interval': round(float(np.median(np.diff(times))), 6) if len(times) > 1 else 0.04,
      'targets': {target: np.asarray(series, np.float64).round(6) for target, series in zip(targets, np.transpose(prediction))},
      'face': np.asarray(face_found).astype(int), 'sound': np.asarray(audio_present).astype(int),
      'gates': [{'of': of, 'words': words, 'decides': legend.decides(name),
                 'scores': [np.asarray(column, np.float64).round(4) for column in np.transpose(gates[name])]}
                for name, (of, words) in described.items()]}
  place = '<data>'  # which no text can hold that is escaped
  before, after = templates.fill('page.html', title=html.escape(title), notes=templates.items(notes), data=place, version=avjax.__version__).split(place)
  with open(path, 'wb') as file, open(video, 'rb') as film:
    file.write(before.encode('utf-8', 'replace'))  # a file name may hold what UTF-8 cannot
    for piece in templates.escaped_json(data):
      file.write(piece.encode())
    file.write(after.encode())
    while block := film.read(BLOCK):
      file.write(b'<script type="text/plain" class="media">' + base64.b64encode(block) + b'</script>\n')
