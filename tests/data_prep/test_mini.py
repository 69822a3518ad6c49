"""Tests the synthetic data set: complete, with all its quirks, the same every time, and with labels
that can be predicted from it.
"""

import dataclasses
import hashlib
import json

import av
import cv2
import numpy as np
import pytest

from avjax.data.splits import CHUNKS
from avjax.errors import InputError
from avjax.media import audio, video
from data_prep import mini
from data_prep.mini import face as mini_face
from data_prep.mini import latents as mini_latents
from data_prep.mini import video as mini_video
from data_prep.mini import voice as mini_voice
from data_prep.mini.__main__ import main
from data_prep.sources import affwild2

SECONDS, VIDEOS = 8, 26
DIALS = mini_latents.Dials()


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  output = tmp_path_factory.mktemp('mini') / 'set'
  mini.generate(output, videos=VIDEOS, seconds=SECONDS, workers=2)
  return output


@pytest.fixture(scope='module')
def clips(root):
  return {clip.name: clip for clip in affwild2.list_clips(affwild2.find_roots(root))}


def quirky(quirk):
  return next(row for row in mini.AWKWARD if row.quirk == quirk)


def read_rows(path):
  return np.array(
    [[float(cell) for cell in line.split(',')] for line in path.read_text().splitlines()[1:]]
  )


def crop_frames(clip):
  return sorted(int(path.stem) for path in clip.crops.glob('*.jpg'))


def truth(root, name):
  return np.load(root / '_truth' / f'{name}.npz')


@pytest.mark.slow
def test_layout_is_complete(root, clips):
  table = mini.list_videos(VIDEOS)
  assert {name: clip.partition for name, clip in clips.items()} == {
    name: row.partition for row in table for name in row.clips
  }
  splits = affwild2.split_clips(clips.values())
  assert all(splits.values()) and set(splits) == {*CHUNKS, 'test'}
  assert {clip.video.parent.name for clip in clips.values()} == {'batch1', 'batch2', 'new_vids'}
  for clip in clips.values():
    assert (clip.crops.parent.name == 'cropped_aligned_new_50_vids') == (
      clip.video.parent.name == 'new_vids'
    )
  assert {path.stem for path in (root / '_truth').iterdir()} == set(clips)
  assert len(list(root.glob('cropped_aligned*/.DS_Store'))) == 2
  assert len(list(root.glob('cropped_aligned*/*/.DS_Store'))) == 2


def test_submission_template_lists_every_frame_of_the_test_videos(root, clips):
  header, *rows = (root / mini.TEST_SAMPLE).read_text().splitlines()
  names = (root / mini.TEST_LIST).read_text().split()
  assert header == 'image_location,valence,arousal'
  assert rows == [
    f'{name}/{k:05d}.jpg,,'
    for name in names
    for k in range(1, len(video.read_timeline(clips[name].video).times) + 1)
  ]


def test_containers_codecs_and_rates(root, clips):
  rates, codecs = set(), {}
  for row in mini.list_videos(VIDEOS):
    path = clips[row.clips[0]].video
    with av.open(str(path)) as container:
      frames = [frame.pts for frame in container.decode(video=0)]
      sound = container.streams.audio
      codecs.setdefault(path.suffix, set()).add(
        (
          container.streams.video[0].codec_context.codec.name,
          sound[0].codec_context.name if sound else None,
        )
      )
    timeline = video.read_timeline(path)
    assert len(frames) == len(timeline.times) == row.frame_count(SECONDS), row
    if row.quirk == 'variable_rate':
      assert timeline.rate is None and len(np.unique(np.diff(timeline.times).round(3))) > 5
    else:
      assert timeline.rate == pytest.approx(row.fps, abs=1e-3), row
      rates.add(row.fps)
  assert rates == {15, 23.976, 24, 25, 29.97, 30, 60}
  assert codecs == {'.mp4': {('h264', 'aac')}, '.avi': {('mpeg4', 'mp3float'), ('mpeg4', None)}}


def test_crops_are_cut_from_the_frames(clips):
  for name in ('105', 'video12_1', '10-60-1280x720_left', '10-60-1280x720_right'):
    images = list(video.read_frames(clips[name].video))
    for k in crop_frames(clips[name])[10:40:10]:
      crop = cv2.imread(str(clips[name].crops / f'{k:05d}.jpg'))[:, :, ::-1].copy()
      assert crop.shape == (112, 112, 3)
      half = images[k - 1].shape[1] // 2
      side = {'left': np.s_[:, :half], 'right': np.s_[:, half:]}.get(
        name.rpartition('_')[2], np.s_[:]
      )
      fit = cv2.matchTemplate(np.ascontiguousarray(images[k - 1][side]), crop, cv2.TM_CCOEFF_NORMED)
      assert fit.max() > 0.97, (name, k)


def test_annotation_gaps(clips):
  rows = read_rows(clips[quirky('gaps').name].annotation)
  missing = rows == -5
  assert missing[:12].all() and not missing[12].any()
  alone = missing.all(axis=1)
  alone[1:-1] &= ~alone[:-2] & ~alone[2:]
  assert alone[1:-1].sum() == 1
  assert (missing[:, 0] & ~missing[:, 1]).sum() == 4 and (missing[:, 1] & ~missing[:, 0]).sum() == 3
  assert ((rows >= -1) & (rows <= 1) | missing).all()


def test_missing_faces(clips):
  row = quirky('missing_faces')
  n = row.frame_count(SECONDS)
  absent = sorted(set(range(1, n + 1)) - set(crop_frames(clips[row.name])))
  runs = np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1)
  assert absent[0] == 1 and absent[-1] == n
  assert sorted(map(len, runs)) == [1, 5, 8, 20]


def test_lengths(clips):
  differences = {}
  for clip in clips.values():
    if clip.annotation:
      n = len(video.read_timeline(clip.video).times)
      differences[clip.name] = len(read_rows(clip.annotation)) - n
      assert crop_frames(clip)[-1] <= n
  assert {name: d for name, d in differences.items() if d} == {
    quirky('long_annotation').name: 2,
    quirky('short_annotation').name: -1,
  }
  assert quirky('short').frame_count(60) == 170 and quirky('tiny').frame_count(60) == 40


def test_two_subjects_share_one_video(clips):
  left, right = (clips[name] for name in quirky('two_subjects').clips)
  assert left.video == right.video and left.name.endswith('_left') and right.name.endswith('_right')
  assert not np.array_equal(read_rows(left.annotation), read_rows(right.annotation))


def test_sound_tracks(clips):
  def sound(quirk):
    return video.read_sound(clips[quirky(quirk).clips[0]].video)

  assert sound('no_sound') is None
  assert not sound('silent').samples.any()
  row = quirky('short_sound')
  assert len(sound('short_sound').samples) / 16000 == pytest.approx(
    0.8 * row.frame_count(SECONDS) / row.fps, abs=0.1
  )
  with av.open(str(clips['105'].video)) as container:
    assert container.streams.audio[0].rate == 44100 and container.streams.audio[0].channels == 2
  late = clips[quirky('late_video').name].video
  assert video.read_timeline(late).start == pytest.approx(0.3) and video.read_sound(late).start == 0
  late = clips[quirky('late_sound').name].video
  assert video.read_timeline(late).start == 0 and video.read_sound(late).start == pytest.approx(
    0.4, abs=0.03
  )


@pytest.mark.parametrize(
  'quirk', ['gaps', 'missing_faces', 'late_video', 'late_sound', 'variable_rate', 'tiny']
)
def test_sound_lies_where_it_was_spoken(clips, quirk):
  row = quirky(quirk)
  timeline, sound = (
    video.read_timeline(clips[row.name].video),
    video.read_sound(clips[row.name].video),
  )
  seconds = timeline.times[-1] + 1 / row.fps
  person = mini_video.Person(
    row.name, 0, seconds, DIALS, 2 * mini.AWKWARD.index(row) * mini_video.GOLDEN % 1
  )
  spoken = mini_voice.synthesise(
    mini_latents.generator(0, 'sound', row.name), person.speech, person.noisy
  )
  heard = sound.samples[:32000].astype(np.float32)
  first = round((sound.start - timeline.start - person.speech.times[0]) * 16000)
  spoken = np.pad(spoken, (0, 4000))
  likeness = [heard @ spoken[first + lag : first + lag + len(heard)] for lag in range(-160, 161)]
  assert abs(int(np.argmax(likeness)) - 160) <= 16  # a millisecond


def test_one_crop_is_broken_and_listed(root, clips):
  listed = (root / 'unreadable.txt').read_text().split()
  unreadable = [
    f'{clip.name}/{path.name}'
    for clip in clips.values()
    for path in sorted(clip.crops.glob('*.jpg'))
    if path.read_bytes()[-2:] != b'\xff\xd9'
  ]
  assert unreadable == listed and len(listed) == 1


def test_labels_are_the_latents(root, clips):
  for clip in clips.values():
    known = truth(root, clip.name)
    for field in ('va', 'face', 'voice'):
      assert np.abs(known[field]).max() <= 1
    if clip.annotation:
      rows = read_rows(clip.annotation)[: len(known['va'])]
      annotated = rows != -5
      np.testing.assert_allclose(rows[annotated], known['va'][: len(rows)][annotated], atol=0.00051)
  left, right = (truth(root, name)['speaks'] for name in quirky('two_subjects').clips)
  assert (left ^ right).mean() > 0.98 and 0.2 < left.mean() < 0.8


def digest(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


@pytest.mark.slow
def test_same_settings_same_bytes(root, tmp_path):
  mini.generate(tmp_path / 'again', videos=VIDEOS, seconds=SECONDS, workers=1)
  assert digest(tmp_path / 'again') == digest(root)


@pytest.mark.parametrize('rho', [0, 0.1, 0.3, 0.6, 1])
@pytest.mark.parametrize('seconds', [8.0, 16.0, 60.0])
def test_conflict_share_is_the_dial(rho, seconds):
  times = np.arange(-1.5, seconds + 1.5, 0.05)
  inside = (times >= 0) & (times < seconds)
  states = np.stack(
    [
      mini_latents.conflict(
        np.random.default_rng(i), times, seconds, rho, i * mini_video.GOLDEN % 1
      )
      for i in range(60)
    ]
  )[:, inside]
  assert (states != mini_latents.CLEAN).mean() == pytest.approx(rho, abs=0.03)
  assert (states == mini_latents.FACE_LIES).mean() == pytest.approx(rho / 2, abs=0.06)


def test_dials_decide_what_a_liar_shows():
  def errors(anti):
    shown = [
      mini_latents.perform(
        np.random.default_rng(i), 20.0, mini_latents.Dials(rho=0.5, anti=anti), i / 20
      )
      for i in range(20)
    ]
    lying = np.concatenate([one.state == mini_latents.FACE_LIES for one in shown])
    va, face = (
      np.concatenate([getattr(one, name)[:, 0] for one in shown]) for name in ('va', 'face')
    )
    return np.corrcoef(va[lying], face[lying])[0, 1], np.corrcoef(va[~lying], face[~lying])[0, 1]

  assert errors(1)[0] < -0.7 and abs(errors(0)[0]) < 0.4
  assert min(errors(1)[1], errors(0)[1]) > 0.9


def test_a_lie_is_as_visible_as_kappa_says():
  identity = mini_face.invent_identity(np.random.default_rng(0))
  still = np.zeros((3, 2)), np.arange(3.0), np.zeros(3)
  look = mini_face.express(np.random.default_rng(0), *still, hidden=np.array([0, 0.5, 1]))
  look = dataclasses.replace(look, eyes=np.full(3, 0.6), x=np.full(3, 24), y=np.full(3, 4))
  images = [mini_face.draw(identity, look, i)[4:116, 24:136] for i in range(3)]
  edges = [cv2.Laplacian(image, cv2.CV_32F).std() for image in images]
  assert edges[0] > 2 * edges[1] > 2 * edges[2]
  assert images[0].mean() > images[1].mean() > images[2].mean()


MUTE = {quirky('silent').name, quirky('no_sound').name}


def features(root, clip):
  """Returns pixels (N,784), statistics of the frame's log-mel window (N,128), latents (N,2), of
  every third crop.
  """
  timeline, known = video.read_timeline(clip.video), truth(root, clip.name)
  rows, starts, _ = audio.hear(timeline, video.read_sound(clip.video))
  faces, sounds, kept = [], [], []
  for k in crop_frames(clip)[::3]:
    image = cv2.imread(str(clip.crops / f'{k:05d}.jpg'), cv2.IMREAD_GRAYSCALE)
    if image is None or k > len(known['va']):
      continue
    small = cv2.resize(image[20:], (28, 28), interpolation=cv2.INTER_AREA).astype(float)
    faces.append(((small - small.mean()) / small.std()).ravel())
    window = rows[starts[k - 1] : starts[k - 1] + 96].astype(float)
    sounds.append(np.concatenate([window.mean(axis=0), window.std(axis=0)]))
    kept.append(k - 1)
  return np.array(faces), np.array(sounds), known['va'][kept]


def ridge(x, y, unseen, strength=0.3):
  mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-3
  x, unseen = (x - mean) / scale, (unseen - mean) / scale
  weights = np.linalg.solve(
    x.T @ x + strength * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0))
  )
  return unseen @ weights + y.mean(axis=0)


def ccc(x, y):
  covariance = ((x - x.mean(axis=0)) * (y - y.mean(axis=0))).mean(axis=0)
  return 2 * covariance / (x.var(axis=0) + y.var(axis=0) + (x.mean(axis=0) - y.mean(axis=0)) ** 2)


def test_emotions_of_unseen_people_are_recovered(root, clips):
  def gather(*partitions):
    people = [
      clip for clip in clips.values() if clip.partition in partitions and clip.name not in MUTE
    ]
    return [
      np.concatenate(column)
      for column in zip(*(features(root, clip) for clip in people), strict=True)
    ]

  known, unseen = gather('train'), gather('validation', 'test')
  face, voice, both = (
    ridge(x, known[2], z)
    for x, z in (
      (known[0], unseen[0]),
      (known[1], unseen[1]),
      (np.hstack(known[:2]), np.hstack(unseen[:2])),
    )
  )
  scores = {
    name: ccc(guess, unseen[2]).round(3)
    for name, guess in (('face', face), ('voice', voice), ('both', both))
  }
  assert scores['face'][0] > 0.8 and scores['voice'][1] > 0.55 and scores['both'].min() > 0.6, (
    scores
  )
  shuffled = np.random.default_rng(0).permutation(known[2])
  assert (
    np.abs(ccc(ridge(np.hstack(known[:2]), shuffled, np.hstack(unseen[:2])), unseen[2])).max() < 0.2
  )


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(InputError, match='not empty'):
    mini.generate(tmp_path, videos=VIDEOS, seconds=SECONDS)
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_a_complete_set_is_kept_and_other_settings_refused(root, capsys):
  before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
  arguments = ['--output', str(root), '--videos', str(VIDEOS), '--seconds', str(SECONDS)]
  assert main(arguments) == 0
  assert 'complete already' in capsys.readouterr().out
  with pytest.raises(InputError, match='not empty'):
    main([*arguments, '--seed', '1'])
  assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_an_interrupted_set_is_finished(root, tmp_path):
  settings = json.loads((root / mini.DONE).read_text()) | {
    'videos': len(mini.AWKWARD),
    'seconds': 6.0,
  }
  (tmp_path / mini.BEGUN).write_text(json.dumps(settings))
  (tmp_path / 'videos').mkdir()
  mini.generate(tmp_path, videos=len(mini.AWKWARD), seconds=6.0, workers=2)
  assert (tmp_path / mini.DONE).exists() and not (tmp_path / mini.BEGUN).exists()


@pytest.mark.parametrize(
  'arguments, said',
  [
    ({'videos': 3}, '--videos'),
    ({'seconds': 1}, '--seconds'),
    ({'dials': mini_latents.Dials(rho=2)}, '--rho'),
    ({'dials': mini_latents.Dials(preset='loud')}, '--preset'),
  ],
)
def test_settings_out_of_range(tmp_path, arguments, said):
  with pytest.raises(InputError, match=said):
    mini.generate(tmp_path / 'set', **arguments)
  assert not (tmp_path / 'set').exists()
