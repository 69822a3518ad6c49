"""Writes the page of one video, which plays in step with its valence, arousal and gates.

The page is one HTML file, clip_page.html with the data and the video in it, and loads nothing else.
"""

import base64

import numpy as np
from markupsafe import Markup

import avjax
from avjax.reports import legend, templates

TARGETS_OF_PAGE = ('valence', 'arousal')  # what the page can show; others are in CSV and PNG
VIDEO_BLOCK = 3 << 18  # bytes of video at a time; base64 turns each 3 of them into 4 characters


def write(path, title, video, prediction):
  """Writes the page of one video.

  Args:
    path: the file to write.
    title: of the page, as text; characters that UTF-8 cannot hold become '?'.
    video: path of an H.264/AAC MP4 whose time 0 is prediction.times[0].
    prediction: a VideoPrediction; its notes are shown under the title.
  """
  mark = Markup('<data>')  # no value can contain it, because all of them are escaped
  page = templates.fill(
    'clip_page.html',
    title=title,
    version=avjax.__version__,
    target_style=legend.target_style(),
    notes=templates.list_items(prediction.notes),
    data=mark,
  )
  before, after = page.split(mark)
  with open(path, 'wb') as file, open(video, 'rb') as media:
    file.write(before.encode('utf-8', 'replace'))
    for piece in templates.escaped_json(_page_data(prediction)):
      file.write(piece.encode())
    file.write(after.encode())
    while block := media.read(VIDEO_BLOCK):
      encoded = base64.b64encode(block)
      file.write(b'<script type="text/plain" class="media">' + encoded + b'</script>\n')


def _page_data(prediction):
  """Returns what the page's script reads, rounded to what it can show."""
  times = np.asarray(prediction.times, np.float64)
  interval = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
  shown = {name: x for name, x in prediction.predictions.items() if name in TARGETS_OF_PAGE}
  return {
    'frames': np.asarray(prediction.frames),
    'times': times.round(4),
    'interval': round(interval, 6),
    'targets': {target: x.astype(np.float64).round(6) for target, x in shown.items()},
    'face': prediction.face_found.astype(int),
    'sound': prediction.audio_present.astype(int),
    'gates': [
      _gate_data(name, prediction.gates[name]) for name in legend.sort_gates(prediction.gates)
    ],
  }


def _gate_data(name, scores):
  """Returns one gate of the page's data; scores (n,K)."""
  gate, words = legend.describe_gate(name, scores.shape[1])
  return {
    'name': gate,
    'words': words,
    'weighsPrediction': legend.weighs_prediction(name),
    'scores': [column.astype(np.float64).round(4) for column in scores.T],
  }
