"""Draws a picture of a clip for people: its face at every second, and how often there is one."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avjax import files
from avjax.errors import InputError, writing
from avjax.media import faces
from avjax.media.decoder import Decoder
from data_prep import contents, found_faces
from data_prep.clips import Job

FOLDER = 'contact_sheets'
SIDE = 96  # pixels of a face
CAPTION = 16  # pixels of the line of text under a face
COLUMNS = 12
MOST = 2400  # faces of a sheet: one of a longer video shows fewer than one a second
PAPER, INK, NO_FACE = (255, 255, 255), (40, 40, 40), (200, 200, 200)
FONT_SIZE = 11  # pixels


def draw(job: Job, folder: pathlib.Path) -> None:
  """Writes the sheet of a clip as NAME.jpg into a folder, which is made if need be.

  Faces that are to be found are found first, unless that has been done before.
  """
  clip = job.clip
  if job.face:
    sha256 = contents.sha256_of([clip.video])
    found_faces.keep_faces(clip.video, sha256, job.face, clip.crops)
  with Decoder() as decoder:
    times = decoder.timeline(clip.video).times
  crops = {k: path for k, path in faces.list_crops(clip.crops).items() if k <= len(times)}
  seconds = np.arange(0, times[-1] + 1e-6, max(1, np.ceil(times[-1] / MOST)))
  shown = [int(np.abs(times - second).argmin()) + 1 for second in seconds]
  rows = -(-len(shown) // COLUMNS)
  sheet = Image.new('RGB', (COLUMNS * SIDE, CAPTION + rows * (SIDE + CAPTION)), PAPER)
  pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
  title = f'{clip.name}: a face in {len(crops) / len(times):.1%} of {len(times):,} frames'
  pen.text((4, 1), title, INK, font)
  for i, (second, frame) in enumerate(zip(seconds, shown, strict=True)):
    x, y = i % COLUMNS * SIDE, CAPTION + i // COLUMNS * (SIDE + CAPTION)
    tile = tile_of(crops.get(frame))
    if tile:
      sheet.paste(tile, (x, y))
    else:
      pen.rectangle((x + 1, y + 1, x + SIDE - 2, y + SIDE - 2), NO_FACE)
      pen.text((x + SIDE // 4, y + SIDE // 2 - FONT_SIZE // 2), 'no face', INK, font)
    pen.text((x + 4, y + SIDE + 1), f'{int(second) // 60}:{int(second) % 60:02d}', INK, font)
  path = folder / f'{clip.name}.jpg'
  with writing(path):
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
      sheet.save(partial, quality=90)


def tile_of(crop: pathlib.Path | None) -> Image.Image | None:
  """Returns a crop as it is drawn; None where there is none, or it is broken."""
  try:
    return crop and Image.fromarray(faces.fit(faces.open_crop(crop), SIDE))
  except InputError:
    return None
