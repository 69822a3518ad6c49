"""Computes VGGish's log-mel spectrogram, in rows of 10 ms, and each frame's window of 0.96 s.

The spectrogram is computed once; a window is stored as the row at which it starts.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import librosa
import numpy as np

from avjax import files
from avjax.data.records import MEL_BANDS, NO_SOUND, WINDOW_ROWS
from avjax.media.mixing import SAMPLE_RATE
from avjax.media.video import Sound, SoundReader, Timeline

WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms
LOW_HZ, HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
ROW_SECONDS = 0.010
BLOCK_ROWS = 6000  # rows computed at a time, which bounds the memory for a long video


def give_librosa_folders() -> None:
  """Names the folders of librosa, and of numba with which it compiles: temporary ones if need be.

  librosa fails without a home folder, and numba where it can write to no folder. numba also runs
  what it finds in its folder, and would take the name of that from a file in the current one. It
  must be called before librosa is first used, which imports both.
  """
  if files.user_cache('librosa') is None:
    os.environ['XDG_CACHE_HOME'] = temporary_cache()
  numba = os.environ.get('NUMBA_CACHE_DIR') or files.user_cache('numba')
  usable = numba is not None and files.may_write_in(numba)
  os.environ['NUMBA_CACHE_DIR'] = str(numba) if usable else temporary_cache()


def temporary_cache() -> str:
  """Returns a new folder, which is removed when Python ends."""
  folder = tempfile.mkdtemp(prefix='avjax-cache-')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return folder


give_librosa_folders()


def mel_matrix() -> np.ndarray:
  """Returns VGGish's mel weights, (257,64) float64; those of DC are 0.

  They are triangles that are linear in HTK mel; those of librosa are linear in Hz.
  """

  def mel(hertz):
    return 1127.0 * np.log(1.0 + hertz / 700.0)

  bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
  edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), MEL_BANDS + 2)
  low, centre, high = edges[:-2], edges[1:-1], edges[2:]
  weights = np.maximum(
    0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
  )
  weights[0] = 0.0
  return weights


def log_mel(samples: np.ndarray) -> np.ndarray:
  """Computes VGGish's log-mel rows of a whole sound track, lengthened by one second of its last
  sample.

  Args:
    samples: (n,) int16 at 16 kHz, n >= 1.

  The extra second gives the last frames their whole window.

  Returns (R,64) float32, R = 1 + (n + 15600) // 160, at least log(0.01).
  """
  return np.concatenate(list(log_mel_blocks([samples])))


def log_mel_blocks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields the rows of `log_mel`, some at a time, from a sound track in blocks of samples.

  Memory does not grow with the length of the track.
  """
  # librosa centres the 400 samples of a window in the FFT's 512; 56 zeros on each side put them
  # where VGGish has them.
  around = np.zeros((FFT - WINDOW) // 2, np.float32)
  weights, waiting, last, whole = (
    mel_matrix().astype(np.float32),
    [around],
    None,
    (BLOCK_ROWS - 1) * HOP + FFT,
  )

  def rows_of(wave):
    spectrum = np.abs(
      librosa.stft(wave, n_fft=FFT, hop_length=HOP, win_length=WINDOW, window='hann', center=False)
    )
    return np.log(spectrum.T @ weights + np.float32(LOG_OFFSET))

  for block in (block for block in blocks if len(block)):
    waiting.append(block.astype(np.float32) / 32768)
    last = waiting[-1][-1]
    while sum(map(len, waiting)) >= whole:
      wave = np.concatenate(waiting)
      yield rows_of(wave[:whole])
      waiting = [wave[BLOCK_ROWS * HOP :]]
  if last is None:
    return
  wave = np.concatenate([*waiting, np.full(SAMPLE_RATE, last), around])
  for first in range(0, 1 + (len(wave) - FFT) // HOP, BLOCK_ROWS):
    yield rows_of(wave[first * HOP : first * HOP + whole])


def window_starts(timeline: Timeline, sound_start: float, rows: int) -> np.ndarray:
  """Returns for each frame the row at which its window of 96 rows starts.

  The window begins when the frame is shown.

  Args:
    timeline: the video's Timeline of n frames.
    sound_start: seconds from the container's zero to the first sample.
    rows: rows of the spectrogram, at least 96.

  Returns (n,) int32 in [0, rows - 96]: where the sound is shorter than the video, its last window
  is repeated.
  """
  # Float64 and exactly these operations: at 24 and 48 frames/s many positions lie on .5, and any
  # other way to compute them rounds some of them to the neighbouring row.
  if timeline.rate:
    positions = (1 / timeline.rate) * (1.0 / ROW_SECONDS) * np.arange(len(timeline.times))
  else:
    positions = timeline.times / ROW_SECONDS
  positions = positions + (timeline.start - sound_start) / ROW_SECONDS
  return np.clip(np.rint(positions), 0, rows - WINDOW_ROWS).astype(np.int32)


def place(timeline: Timeline, sound: Sound | SoundReader | None) -> tuple[np.ndarray, np.ndarray]:
  """Finds where a video's frames lie in the spectrogram of its sound.

  Args:
    timeline: Timeline of n frames.
    sound: Sound, or a SoundReader that has been read to its end, or None.

  Returns window_starts (n,) int32, as the function of that name, and audio_present (n,) bool, True
  on frames that have sound.
  """
  n = len(timeline.times)
  if is_silent(sound):
    return np.zeros(n, np.int32), np.zeros(n, bool)
  seconds = timeline.times + (timeline.start - sound.start)  # since the first sample
  audio_present = (seconds >= 0) & (seconds < sound.count / SAMPLE_RATE)
  for first, last in sound.gaps:
    audio_present &= (seconds < first) | (seconds >= last)
  rows = 1 + (sound.count + SAMPLE_RATE - WINDOW) // HOP
  return window_starts(timeline, sound.start, rows), audio_present


def is_silent(sound: Sound | SoundReader | None) -> bool:
  """Tells whether there is no track, or all its samples are -1, 0 or 1 (of 32768).

  Such a track gets 96 rows of silence.
  """
  return sound is None or sound.peak <= 1


def hear(
  timeline: Timeline, sound: Sound | SoundReader | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Joins a video's frames with its sound.

  sound: Sound, or a SoundReader, which this reads to its end, or None.
  Returns log_mel_rows (R,64) float16, and window_starts and audio_present of `place`.
  """
  blocks = [rows.astype(np.float16) for rows in log_mel_blocks(sound or ())]
  silent = is_silent(sound)  # a SoundReader knows this once it has been read
  log_mel_rows = np.full((WINDOW_ROWS, MEL_BANDS), NO_SOUND) if silent else np.concatenate(blocks)
  return log_mel_rows, *place(timeline, sound)


def windows(sound: Sound | SoundReader | None, window_starts: np.ndarray) -> Iterator[np.ndarray]:
  """Yields each frame's window of log-mel rows, (96,64) float16.

  It holds only the part of the spectrogram that it needs.

  Args:
    sound: as `place` takes it; a SoundReader is read once more.
    window_starts: (n,) ascending, as `place` returns them.
  """
  if is_silent(sound):
    yield from (np.full((WINDOW_ROWS, MEL_BANDS), NO_SOUND) for _ in window_starts)
    return
  rows, first, blocks = np.zeros((0, MEL_BANDS), np.float16), 0, log_mel_blocks(sound)
  for start in window_starts:
    while start + WINDOW_ROWS > first + len(rows):
      rows, first = rows[start - first :], min(start, first + len(rows))
      rows = np.concatenate([rows, next(blocks).astype(np.float16)])
    yield rows[start - first :][:WINDOW_ROWS]


def keep_rows(log_mel_rows: np.ndarray, window_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Keeps only the rows of a spectrogram that these windows need.

  Returns (the rows (K,64), window_starts as indices of these rows).
  """
  needed = np.unique(window_starts[:, None] + np.arange(WINDOW_ROWS))
  return log_mel_rows[needed], np.searchsorted(needed, window_starts).astype(np.int32)
