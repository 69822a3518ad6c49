"""Makes a tiny Aff-Wild2 in the official layout in which each frame can be told from the others.

Frame k of a clip has a crop of grey 5 k, valence k / 100 and arousal -k / 100, and sounds at the
centre of VGGish's mel band 17 + k while it is shown.
"""

import fractions

import av
import numpy as np
from PIL import Image

ANNOTATIONS = '8th ABAW Annotations/VA_Estimation_Challenge'
RATE = 25
# name: (frames, annotated frames, ending, partition); the pair's frames come from one video.
CLIPS = {
  '10-25-64x48_left': (40, range(1, 41), '.avi', 'Train_Set'),
  '10-25-64x48_right': (40, range(5, 41), '.avi', 'Train_Set'),
  '102': (45, [*range(3, 11), *range(14, 29), *range(35, 44)], '.avi', 'Train_Set'),
  '103': (9, range(1, 10), '.mp4', 'Train_Set'),
  '1035': (10, (), '.avi', 'Train_Set'),  # no annotated frame at all
  '104': (20, range(1, 21), '.avi', 'Train_Set'),
  'video7': (30, range(1, 31), '.mp4', 'Train_Set'),
  '200': (33, [*range(1, 20), *range(25, 34)], '.avi', 'Validation_Set'),
  '300': (25, None, '.avi', 'test'),
}
MISSING_CROPS = {'102': (6, 7, 20), '300': (1, 25)}
SIZES = ['--length', '12', '--stride', '8', '--face', '16']


def tone(frames, rate=44_100):
  """Returns (n,) float: for each frame, a tone at the centre of mel band 17 + k, its phase
  continuous.
  """
  mel = np.linspace(*(1127 * np.log(1 + np.array([125, 7500]) / 700)), 66)[1:-1]
  hertz = 700 * (np.exp(mel / 1127) - 1)
  per_sample = hertz[17 + np.repeat(np.arange(1, frames + 1), rate // RATE)]
  return 0.3 * np.sin(2 * np.pi * np.cumsum(per_sample) / rate)


def write_video(
  path,
  frames,
  sound=None,
  pts=None,
  sound_delay=0.0,
  rate=RATE,
  sound_rate=44_100,
  image=None,
  clock=1000,
):
  """Writes an H.264/AAC .mp4 or MPEG-4/PCM .avi of grey 5 k; `pts` in 1/clock s makes the frame
  rate vary.
  """
  with av.open(str(path), 'w') as container:
    video = container.add_stream(
      'libx264' if path.suffix == '.mp4' else 'mpeg4', rate=fractions.Fraction(rate)
    )
    video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
    # Nearly lossless: greys 5 apart stay apart.
    video.options = {'crf': '1', 'qmin': '1', 'qmax': '1'}
    if pts is not None:
      video.codec_context.time_base = fractions.Fraction(1, clock)
    if sound is not None:
      audio = container.add_stream('aac' if path.suffix == '.mp4' else 'pcm_s16le', rate=sound_rate)
      audio.layout = 'mono'
    for k in range(frames):
      grey = np.full((48, 64, 3), 5 * k % 256, np.uint8)
      frame = av.VideoFrame.from_ndarray(grey if image is None else image, format='rgb24')
      if pts is not None:
        frame.pts, frame.time_base = int(pts[k]), fractions.Fraction(1, clock)
      container.mux(video.encode(frame))
    container.mux(video.encode())
    if sound is not None:
      samples = (sound * 32767).astype(np.int16)[None]
      for first in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(
          samples[:, first : first + 1024], format='s16', layout='mono'
        )
        frame.sample_rate, frame.time_base = sound_rate, fractions.Fraction(1, sound_rate)
        frame.pts = first + round(sound_delay * sound_rate)
        container.mux(audio.encode(frame))
      container.mux(audio.encode())


def make_official(root):
  """Writes the data set of CLIPS under root."""
  for part in (
    'batch1',
    'new_vids',
    'cropped_aligned',
    'cropped_aligned_new_50_vids',
    'test_set',
    f'{ANNOTATIONS}/Train_Set',
    f'{ANNOTATIONS}/Validation_Set',
  ):
    (root / part).mkdir(parents=True)
    (root / part / '.DS_Store').write_bytes(b'\0junk')
  names = root / 'test_set' / 'names_of_videos_in_each_test_set'
  names.mkdir()
  (names / 'Valence_Arousal_Estimation_Challenge_test_set_release.txt').write_text('300\n')
  for name, (frames, annotated, ending, partition) in CLIPS.items():
    new = name == 'video7'
    video = (
      root
      / ('new_vids' if new else 'batch1')
      / (name.removesuffix('_left').removesuffix('_right') + ending)
    )
    if not video.exists():
      write_video(video, frames, tone(frames))
    crops = root / ('cropped_aligned_new_50_vids' if new else 'cropped_aligned') / name
    crops.mkdir()
    (crops / '.DS_Store').write_bytes(b'\0junk')
    for k in set(range(1, frames + 1)) - set(MISSING_CROPS.get(name, ())):
      Image.new('RGB', (28, 28), (5 * k,) * 3).save(crops / f'{k:05d}.jpg', quality=95)
    if annotated is not None:
      rows = [
        f'{k / 100},{-k / 100}' if k in annotated else ('-5,-5' if k % 2 else f'-5,{k / 100}')
        for k in range(1, frames + 1)
      ]
      (root / ANNOTATIONS / partition / f'{name}.txt').write_text(
        '\n'.join(['valence,arousal', *rows, ''])
      )
  return root


def write_clip(folder, frames, faceless=()):
  """Writes a video of so many frames with sound, and a folder of its faces.

  faceless: frames, from 1, that have no face. Returns the paths of the video and of the folder.
  """
  write_video(folder / 'clip.mp4', frames, tone(frames))
  (folder / 'crops').mkdir()
  rng = np.random.default_rng(0)
  for k in range(1, frames + 1):
    if k not in faceless:
      face = Image.fromarray(rng.integers(0, 256, (112, 112, 3), np.uint8))
      face.save(folder / 'crops' / f'{k:05d}.jpg')
  return folder / 'clip.mp4', folder / 'crops'
