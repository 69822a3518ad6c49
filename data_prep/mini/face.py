"""Draws a face whose expression shows valence and arousal.

Valence bends the mouth and lowers or slants the brows; arousal opens the eyes and raises the brows;
the jaw follows the voice. The identity (skin, hair, brows, glasses, beard, clothes, background) is
drawn at random, once per person.
"""

import dataclasses

import cv2
import numpy as np

CROP = 112  # side of the official aligned crops in pixels
WIDTH, HEIGHT = 160, 120  # pixels of a raw frame for each person in it
BITS = 4  # OpenCV draws at multiples of 1 / ONE pixel
ONE = 2**BITS

# Colours are BGR.
SKIN = (
  (150, 196, 242),
  (128, 176, 226),
  (106, 150, 204),
  (82, 118, 172),
  (60, 88, 138),
  (164, 206, 248),
)
HAIR = ((26, 28, 34), (36, 54, 86), (60, 104, 160), (110, 176, 220), (40, 66, 150), (150, 150, 156))
CLOTHES = (
  (150, 90, 60),
  (70, 110, 70),
  (60, 60, 150),
  (120, 120, 120),
  (140, 80, 130),
  (60, 120, 170),
)


@dataclasses.dataclass(frozen=True)
class Identity:
  """Describes what does not change in a person's face from frame to frame.

  Colours are BGR; sizes are pixels of the crop.
  """

  skin: tuple
  hair: tuple
  clothes: tuple
  iris: tuple
  style: int  # of the hair: 0 bald, 1 short, 2 long, 3 a bun
  width: float  # half the width of the head
  brow: float  # thickness
  glasses: bool
  beard: bool
  background: np.ndarray  # (HEIGHT,WIDTH,3)


@dataclasses.dataclass(frozen=True)
class Look:
  """Holds a face's expression over N frames, each field (N,).

  smile, frown, sad, lift are in about [-1, 1]; eyes and jaw say how open they are, in about [0, 1];
  x and y, int, are the crop's place in the raw frame; hidden, in [0, 1], says how blurred and dark
  the face is.
  """

  smile: np.ndarray
  frown: np.ndarray
  sad: np.ndarray
  lift: np.ndarray
  eyes: np.ndarray
  jaw: np.ndarray
  x: np.ndarray
  y: np.ndarray
  hidden: np.ndarray


def invent_identity(rng):
  """Returns a random Identity."""
  tint = rng.uniform(70, 200, 3)
  shade = (
    np.linspace(1.1, 0.8, HEIGHT)[:, None, None]
    * np.linspace(*rng.permutation([0.9, 1.1]), WIDTH)[:, None]
  )
  vary = rng.uniform(0.94, 1.06)
  return Identity(
    skin=tuple(min(255, c * vary) for c in SKIN[rng.integers(len(SKIN))]),
    hair=HAIR[rng.integers(len(HAIR))],
    clothes=CLOTHES[rng.integers(len(CLOTHES))],
    iris=((120, 80, 40), (40, 70, 110), (70, 110, 60))[rng.integers(3)],
    style=int(rng.choice(4, p=(0.1, 0.4, 0.35, 0.15))),
    width=rng.uniform(37, 42),
    brow=rng.uniform(2.5, 4.5),
    glasses=bool(rng.random() < 0.2),
    beard=bool(rng.random() < 0.2),
    background=np.clip(tint * shade, 0, 255).astype(np.uint8),
  )


def express(rng, face, times, envelope, hidden):
  """Returns the Look of a face over N frames.

  Args:
    rng: random generator of blinks and movements of the head.
    face: (N,2) valence and arousal that it shows.
    times: (N,) seconds.
    envelope: (N,) in [0, 1], how loud this person speaks.
    hidden: (N,) in [0, 1], how blurred and dark the face is.
  """
  valence, arousal = face.T
  low, high = np.maximum(-valence, 0), np.maximum(valence, 0)
  eyes = 0.60 + 0.36 * arousal - 0.12 * high
  for blink in np.cumsum(rng.uniform(2, 5, int(times[-1]) + 2)) + times[0]:
    eyes = np.where(np.abs(times - blink) < 0.07, 0.05, eyes)
  speed = rng.uniform(0.15, 0.35, 2)
  sway = (
    np.sin(2 * np.pi * (speed * times[:, None] + rng.uniform(0, 1, 2)))
    * (0.6 + 0.4 * arousal)[:, None]
  )
  return Look(
    smile=valence,
    frown=low * (0.6 + 0.4 * arousal),
    sad=low * (0.5 - 0.4 * arousal),
    lift=arousal,
    eyes=np.maximum(eyes, 0.05),
    jaw=np.clip(0.12 + 0.12 * arousal + 0.4 * envelope, 0, 1),
    x=np.rint((WIDTH - CROP) / 2 * (1 + 0.8 * sway[:, 0])).astype(int),
    y=np.rint((HEIGHT - CROP) / 2 * (1 + 0.8 * sway[:, 1])).astype(int),
    hidden=hidden,
  )


def draw(identity, look, i):
  """Draws frame i: the raw image (HEIGHT,WIDTH,3) uint8 BGR.

  Its crop is image[y:y + CROP, x:x + CROP].
  """
  image = identity.background.copy()
  x, y = int(look.x[i]), int(look.y[i])
  pen = Pen(image, x, y)
  head(pen, identity)
  eyes_and_brows(pen, identity, look, i)
  mouth(pen, identity, look, i)
  if look.hidden[i] > 0:
    crop = image[y : y + CROP, x : x + CROP]
    blurred = cv2.GaussianBlur(crop, (0, 0), 0.5 + 3 * look.hidden[i])
    crop[:] = cv2.convertScaleAbs(blurred, alpha=1 - 0.5 * look.hidden[i])
  return image


class Pen:
  """Draws antialiased on an image in the coordinates of the crop, which lies at (x, y) in it."""

  def __init__(self, image, x, y):
    self.image, self.x, self.y = image, x, y

  def ellipse(self, centre, radii, colour, thickness=-1, arc=(0, 360)):
    centre = (round((centre[0] + self.x) * ONE), round((centre[1] + self.y) * ONE))
    cv2.ellipse(
      self.image,
      centre,
      (round(radii[0] * ONE), round(radii[1] * ONE)),
      0,
      *arc,
      colour,
      thickness,
      cv2.LINE_AA,
      BITS,
    )

  def line(self, x, y, colour, thickness):
    cv2.polylines(self.image, [self.points(x, y)], False, colour, thickness, cv2.LINE_AA, BITS)

  def fill(self, x, y, colour):
    cv2.fillPoly(self.image, [self.points(x, y)], colour, cv2.LINE_AA, BITS)

  def points(self, x, y):
    """Returns the points in the units of OpenCV, (n,2) int32; y may be one number for all."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return ((points + np.array([self.x, self.y])) * ONE).astype(np.int32)


def mix(colour, other, share):
  """Mixes two colours; `share`, in [0, 1], is that of the other."""
  return tuple((1 - share) * a + share * b for a, b in zip(colour, other, strict=True))


def head(pen, identity):
  """Draws hair, clothes, neck, ears and face."""
  skin, hair, width = identity.skin, identity.hair, identity.width
  if identity.style == 2:
    pen.ellipse((56, 62), (width + 9, 56), hair)
  if identity.style == 3:
    pen.ellipse((56, 8), (15, 11), hair)
  pen.ellipse((56, 126), (46, 20), identity.clothes)
  pen.ellipse((56, 106), (15, 14), mix(skin, (0, 0, 0), 0.15))
  for side in (-1, 1):
    pen.ellipse((56 + side * width, 64), (6, 9), mix(skin, (0, 0, 0), 0.08))
  if identity.style:
    pen.ellipse((56, 50), (width + 3, 46), hair)
  pen.ellipse((56, 62), (width, 49), skin)
  if identity.beard:
    pen.ellipse((56, 88), (width * 0.78, 24), mix(skin, hair, 0.45))
    pen.ellipse((56, 70), (width * 0.72, 15), skin)
  if identity.style:
    pen.ellipse((56, 29), (0.86 * width, 22), hair, arc=(180, 360))


def eyes_and_brows(pen, identity, look, i):
  """Draws eyes, brows, glasses, the lines of a frown, and the nose."""
  skin, shade = identity.skin, mix(identity.skin, (0, 0, 0), 0.4)
  opening = 10 * look.eyes[i]
  # The brows are high when aroused and low when angry; their inner ends go down in anger and up in
  # sorrow.
  height = 39 - 7 * look.lift[i] + 3 * look.frown[i]
  inner = 8 * look.frown[i] - 9 * look.sad[i]
  for side in (-1, 1):
    centre = 56 + 18 * side
    pen.ellipse((centre, 52), (10, max(opening, 1)), (250, 250, 250))
    if opening > 2:
      pen.ellipse((centre, 52), (5, min(5.5, opening)), identity.iris)
      pen.ellipse((centre, 52), (2.5, min(2.7, opening)), (20, 20, 20))
    pen.ellipse((centre, 52), (10, max(opening, 1)), shade, 2, arc=(180, 360))
    brow = (
      (centre - 10 * side, centre, centre + 11 * side),
      (height + inner, height - 3, height + 1),
    )
    pen.line(*brow, mix(identity.hair, (20, 20, 20), 0.5), round(identity.brow))
    if identity.glasses:
      pen.ellipse((centre, 53), (14, 13), (40, 40, 40), 1)
  if identity.glasses:
    pen.line((52, 60), (51, 51), (40, 40, 40), 1)
  if look.frown[i] > 0.3:
    for side in (-2.5, 2.5):
      pen.line((56 + side, 56 + side), (38, 45), mix(skin, (0, 0, 0), 0.5 * look.frown[i]), 1)
  pen.line((55, 51.5, 57), (58, 71, 73), mix(skin, (0, 0, 0), 0.25), 2)


ACROSS = np.linspace(-1, 1, 9)
BOW = 1 - ACROSS**2


def mouth(pen, identity, look, i):
  """Draws cheeks, mouth, teeth and lips."""
  smile, gape = look.smile[i], 16 * look.jaw[i]
  if smile > 0:
    for side in (-1, 1):
      pen.ellipse((56 + 24 * side, 76), (8, 6), mix(identity.skin, (120, 120, 250), 0.5 * smile))
  x = 56 + (16 + 4 * smile) * ACROSS
  upper = 89 - 4.5 * smile + (9 * smile - 0.3 * gape) * BOW
  lower = upper + (1.5 + gape) * BOW
  around = np.concatenate([x, x[::-1]])
  lips = mix((70, 60, 170), identity.skin, 0.15)
  pen.fill(around, np.concatenate([upper, lower[::-1]]), (50, 30, 90))
  if smile > 0.15 and gape > 2:
    pen.fill(
      around, np.concatenate([upper, (upper + min(0.45 * gape, 3.5) * BOW)[::-1]]), (245, 245, 245)
    )
  pen.line(x, upper, lips, 3)
  pen.line(x, lower, lips, 3)
