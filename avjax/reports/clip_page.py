"""Writes the page of one video, which plays in step with its valence, arousal and gates.

The page is one HTML file, clip_page.html with the data and the video in it, and loads nothing else.
"""

import base64

import numpy as np

from avjax import errors
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
  with open(video, 'rb') as media:
    templates.write(
      path,
      'clip_page.html',
      scripts=('clip_page_draw.js', 'clip_page_follow.js'),
      rules=legend.target_style(),
      title=title,
      notes=map(errors.visible, prediction.notes),
      data=templates.escaped_json(_page_data(prediction)),
      media=_base64_blocks(media),
    )


def _base64_blocks(file):
  """Yields the bytes of a file as base64, block by block."""
  while block := file.read(VIDEO_BLOCK):
    yield base64.b64encode(block).decode('ascii')


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
