"""Makes small data sets in the plain layout, as a person would by hand."""

import pathlib

import av
import numpy as np
from official_set import tone
from PIL import Image

ASTRONAUT = pathlib.Path(__file__).parents[1] / 'data/astronaut.jpg'


def write_face_film(path, frames, start=0, people=1):
  """Writes a film with sound in which a photographed face moves; each frame differs.

  start: pixels by which the face is further on. people: how many copies stand side by side, the
  second one at two thirds of the size.
  """
  picture = np.asarray(Image.open(ASTRONAUT).convert('RGB'))
  second = np.zeros_like(picture)
  second[:212, :212] = np.asarray(Image.fromarray(picture).resize((212, 212)))
  with av.open(str(path), 'w') as film:
    stream = film.add_stream('mpeg4', rate=25, options={'qmin': '2', 'qmax': '2'})
    stream.width, stream.height, stream.pix_fmt = 320 * people, 320, 'yuv420p'
    sound = film.add_stream('pcm_s16le', rate=44_100, layout='mono')
    for k in range(frames):
      image = np.hstack([np.roll(picture, start + 2 * k, axis=1), second][:people])
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
      film.mux(stream.encode(frame))
    film.mux(stream.encode())
    samples = (32767 * tone(frames)).astype(np.int16)[None]
    heard = av.AudioFrame.from_ndarray(samples, format='s16', layout='mono')
    heard.sample_rate, heard.pts = 44_100, 0
    film.mux(sound.encode(heard))
    film.mux(sound.encode())


def make_plain(root, videos=('a', 'b', 'c'), frames=14, films=True):
  """Writes videos and their labels, which count frames, under root.

  films: whether the videos can be played; otherwise they are files of text.
  """
  (root / 'videos').mkdir(parents=True)
  (root / 'labels').mkdir()
  for i, name in enumerate(videos):
    if films:
      write_face_film(root / 'videos' / f'{name}.avi', frames, start=10 * i)
    else:
      (root / 'videos' / f'{name}.avi').write_text('no film')
    rows = [f'{k},{k / 100},{-k / 100}' for k in range(1, frames + 1)]
    write_rows(root / 'labels' / f'{name}.csv', 'frame,valence,arousal', *rows)
  return root


def write_rows(path, *rows):
  """Writes the lines of a table."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join([*rows, '']), encoding='utf-8')
