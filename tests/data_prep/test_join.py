"""Tests on the mini set with its gaps that label, face and sound of every frame of every record
come from the same frame id.
"""

import numpy as np
import pytest
from PIL import Image

from avjax.data import records
from avjax.media import audio, video
from data_prep import build, clips, mini
from data_prep.sources import SOURCES

LAYOUT = records.Layout(length=40, stride=27, face=24)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  output = tmp_path_factory.mktemp('mini') / 'set'
  mini.generate(output, videos=17, seconds=6, workers=2)
  return output


@pytest.mark.slow
def test_every_frame_of_every_record(root):
  args = build.parse_args(['--source', str(root), '--data_dir', 'unused'])
  jobs = [job for members in SOURCES[args.layout].plan(args).values() for job in members]
  broken = set((root / 'unreadable.txt').read_text().split())
  gaps = missing = 0
  for job in jobs:
    lines = [] if job.clip.annotation is None else job.clip.annotation.read_text().splitlines()
    sound, timeline = video.read_sound(job.clip.video), video.read_timeline(job.clip.video)
    spectrogram = None if sound is None else audio.log_mel(sound.samples).astype(np.float16)
    seen = []
    for record in clips.clip_records(clips.decode_clip(job, LAYOUT), LAYOUT):
      for i in np.flatnonzero(record['real']):
        frame = record['frames'][i]
        seen.append(frame)
        assert record['times'][i] == np.float32(timeline.times[frame - 1])
        if lines:
          label = [float(cell) for cell in lines[frame].split(',')]  # line 0 is the header
          assert record['annotated'][i] and np.allclose(record['va'][i], label, atol=1e-6)
        crop = job.clip.crops / f'{frame:05d}.jpg'
        present = crop.exists() and f'{crop.parent.name}/{crop.name}' not in broken
        assert record['face_present'][i] == present
        expected = (
          np.asarray(Image.open(crop).convert('RGB').resize((24, 24), Image.Resampling.BICUBIC))
          if present
          else 0
        )
        assert np.array_equal(record['faces'][i], np.broadcast_to(expected, (24, 24, 3)))
        missing += not present
        window = record['log_mel'][record['starts'][i] : record['starts'][i] + 96]
        if sound is None:
          assert (window == records.NO_SOUND).all() and not record['audio_present'][i]
        else:
          # The row of 10 ms in which the frame is shown, counted from the start of the sound; ties
          # may fall either way.
          row = (timeline.times[frame - 1] + timeline.start - sound.start) * 100
          rows = np.clip(
            [np.floor(row - 1e-6 + 0.5), np.floor(row + 1e-6 + 0.5)], 0, len(spectrogram) - 96
          ).astype(int)
          assert any(np.array_equal(window, spectrogram[r : r + 96]) for r in rows)
      assert (
        not record['frames'][~record['real']].any()
        and not record['annotated'][~record['real']].any()
      )
    n = len(timeline.times)
    valid = (
      [
        k
        for k in range(1, min(n, len(lines) - 1) + 1)
        if all(-1 <= float(cell) <= 1 for cell in lines[k].split(','))
      ]
      if lines
      else list(range(1, n + 1))
    )
    assert sorted(set(seen)) == valid
    gaps += bool(lines) and valid != list(range(valid[0], valid[0] + len(valid)))
  assert gaps and missing >= 5  # the set does contain what this is about
