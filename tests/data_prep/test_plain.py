"""Tests that a folder which a person has made by hand becomes records: labels in time are put on
frames, splits keep subjects apart, and each mistake is one line that says where it is.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import unicodedata

import numpy as np
import pytest
from official_set import SIZES
from plain_set import make_plain, write_rows

from avjax.data import manifest
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from data_prep import build, labels, mini, shards, survey
from data_prep.labels import TimedLabels, Trace
from data_prep.sources import SOURCES, label_files, partition

NAN = np.nan


def parse(source, *options):
  """Returns the arguments of a build of the plain layout; its records are beside the source."""
  words = ['--layout', 'plain', '--source', source, '--data_dir', source.parent / 'records']
  return build.parse_args([*map(str, words), '--workers', '1', *SIZES, *map(str, options)])


def plan(source, *options):
  """Returns {split: jobs}."""
  return SOURCES['plain'].plan(parse(source, *options))


def jobs_of(source, *options):
  """Returns {clip: job}."""
  return {job.clip.name: job for members in plan(source, *options).values() for job in members}


def timed(*traces, by_frame=False, lag=0.0, gap=1.0, weights=None):
  """Returns TimedLabels of traces (places, values)."""
  made = [
    Trace(f'{i}', np.array(places, float), np.array(values, float).reshape(-1, 2))
    for i, (places, values) in enumerate(traces)
  ]
  given = np.ones((len(made), 2)) if weights is None else np.array(weights, float)
  return TimedLabels(tuple(made), given, by_frame, lag, gap)


@pytest.fixture
def untouched(tmp_path):
  """A set whose videos are never opened, for tests of what is planned."""
  return make_plain(tmp_path / 'set', films=False)


# Labels on frames.


def oracle(moments, values, times, gap, near):
  """Does what `interpolate` does, frame by frame, as its docstring says it."""
  found = np.full((len(times), 2), np.nan)
  for i, t in enumerate(times):
    before = [j for j in range(len(moments)) if moments[j] <= t]
    after = [j for j in range(len(moments)) if moments[j] > t]
    for d in range(2):
      if before and after and moments[after[0]] - moments[before[-1]] <= gap:
        a, b = before[-1], after[0]
        share = (t - moments[a]) / (moments[b] - moments[a])
        found[i, d] = (1 - share) * values[a, d] + share * values[b, d]
      if np.isnan(found[i, d]):
        nearest = min(range(len(moments)), key=lambda j: abs(moments[j] - t))
        if abs(moments[nearest] - t) <= near:
          found[i, d] = values[nearest, d]
  return found


@pytest.mark.parametrize('seed', range(8))
def test_labels_in_time_are_put_on_frames_as_the_oracle_does(seed):
  rng = np.random.default_rng(seed)
  moments = np.cumsum(rng.exponential(0.4, 60)) + rng.uniform(-1, 1)
  values = rng.uniform(-1, 1, (60, 2))
  values[rng.random((60, 2)) < 0.2] = np.nan
  times = np.cumsum(rng.uniform(0.01, 0.07, 700)) - 0.5
  found = labels.interpolate(moments, values, times, gap=0.7, near=0.02)
  expected = oracle(moments, values, times, 0.7 + 1e-6, 0.02 + 1e-6)
  assert 50 < np.isfinite(expected).sum() < 1200
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_labels_of_another_rate_by_hand():
  """Labels at 0.1, 0.5 and 1.1 s, on frames every 0.1 s; the gap allows the first pause alone."""
  given = timed(([0.1, 0.5, 1.1], [0.0, 0.2, 0.4, -0.2, 1.0, 1.0]), gap=0.4)
  found, annotated = given.on_frames(np.arange(13) / 10)
  # Not before the first label but for half a frame, nor in the pause of 0.6 s, nor after the last.
  assert np.flatnonzero(annotated).tolist() == [1, 2, 3, 4, 5, 11]
  np.testing.assert_allclose(found[1:6, 0], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-7)
  np.testing.assert_allclose(found[1:6, 1], [0.2, 0.1, 0, -0.1, -0.2], atol=1e-7)
  assert found[11].tolist() == [1, 1] and not found[6:11].any() and found.dtype == np.float32


def test_half_a_frame_beyond_the_ends_and_no_further():
  given = timed(([0.04, 0.16], [0.5, 0.5, 0.7, 0.7]))
  times = np.arange(4) / 10  # half a frame is 0.05 s
  assert given.on_frames(times)[1].tolist() == [True, True, True, False]
  late = timed(([0.06, 0.14], [0.5, 0.5, 0.7, 0.7]))
  assert late.on_frames(times)[1].tolist() == [False, True, False, False]


def test_an_empty_label_is_not_filled_and_a_missing_row_is():
  times = np.arange(6) / 25
  values = [0.1, 0.1, NAN, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.6, 0.6]
  empty = timed((np.arange(1, 7), values), by_frame=True)
  assert empty.on_frames(times)[1].tolist() == [True, False, True, True, True, True]
  missing = timed(([1, 3, 6], [0.1, 0.1, 0.3, 0.3, 0.6, 0.6]), by_frame=True)
  found, annotated = missing.on_frames(times)
  assert annotated.all()
  np.testing.assert_allclose(found[:, 0], np.arange(1, 7) / 10, atol=1e-7)
  assert timed(([1, 3, 6], [0.1] * 6), by_frame=True, gap=0.1).on_frames(times)[1].tolist() == [
    True, True, True, False, False, True,
  ]  # fmt: skip


def test_labels_of_frames_stay_as_they_are_at_any_rate():
  """Also where the frame rate varies, each label goes to its own frame, to the last bit."""
  rng = np.random.default_rng(0)
  values = rng.uniform(-1, 1, (50, 2))
  times = np.cumsum(np.r_[0, rng.choice([0.005, 0.033, 0.2], 49)])
  found, annotated = timed((np.arange(1, 51), values), by_frame=True).on_frames(times)
  np.testing.assert_array_equal(found, values.astype(np.float32))
  assert annotated.all()


def test_a_lag_moves_labels_back_in_time():
  """Each label describes what was to be seen 0.2 s, that is five frames, before."""
  times = np.arange(30) / 25
  rising = np.repeat(np.arange(1, 31)[:, None] / 100, 2, axis=1)
  for by_frame, places in ((True, np.arange(1, 31)), (False, times)):
    found, annotated = timed((places, rising), by_frame=by_frame, lag=0.2).on_frames(times)
    assert annotated.tolist() == [True] * 25 + [False] * 5, by_frame
    np.testing.assert_allclose(found[:25, 0], np.arange(6, 31) / 100, atol=1e-7)


def test_rows_after_the_end_are_counted():
  times = np.arange(10) / 25
  counted = timed((np.arange(1, 14), np.zeros((13, 2))), by_frame=True)
  assert len(counted.rows_after(times)) == 3
  assert len(timed(([0, 0.37, 0.39, 0.5], np.zeros((4, 2)))).rows_after(times)) == 2
  nothing = timed(([0, 0.5], [0, 0, NAN, NAN]))
  assert not len(nothing.rows_after(times))


@pytest.mark.parametrize('column, far', [('time', 4e10), ('time', -1e5), ('frame', 2e9)])
def test_labels_far_from_the_video_are_refused_before_annotators_are_compared(
  untouched, column, far
):
  """Nanoseconds would be compared at more moments than fit into memory."""
  (untouched / 'labels/a.csv').unlink()
  rows = [f'{place:.0f},0.1,0.2' for place in sorted((1, 2, far))]
  for who in ('ann', 'bob'):
    write_rows(untouched / f'labels/a/{who}.csv', f'{column},valence,arousal', *rows)
  with pytest.raises(InputError) as error:
    plan(untouched, '--annotators', 'ewe')
  line = rows.index(f'{far:.0f},0.1,0.2') + 2
  words = r'^2 files of labels have rows that are more than a day from the start of the video: .*'
  assert re.search(f'{words}ann.csv, line {line} ', str(error.value)) and len(error.value.args) == 1


# Several annotators.


def test_the_mean_is_over_those_who_annotated_the_frame():
  times = np.arange(4) / 25
  given = timed(
    ([1, 2, 3, 4], [0.1, 0.1, 0.2, NAN, NAN, 0.3, NAN, NAN]),
    ([1, 2, 3, 4], [0.3, 0.5, 0.4, 0.5, 0.6, NAN, NAN, NAN]),
    by_frame=True,
  )
  found, annotated = given.on_frames(times)
  assert annotated.tolist() == [True, True, True, False]
  np.testing.assert_allclose(found, [[0.2, 0.3], [0.3, 0.5], [0.6, 0.3], [0, 0]], atol=1e-7)
  weighted = timed(
    ([1, 2], [0.1, 0.1, 0.1, 0.1]), ([1, 2], [0.5, 0.5, NAN, 0.5]), by_frame=True,
    weights=[[0, 1], [1, 3]],
  )  # fmt: skip
  found, annotated = weighted.on_frames(times[:2])
  np.testing.assert_allclose(found[0], [0.5, 0.4], atol=1e-7)
  assert annotated.tolist() == [True, False]  # whoever has no weight does not count


def test_ewe_weights_by_hand():
  """Three annotators of valence 1 2 3 4, 1 2 3 4 and 4 3 3 2 tenths, the same in arousal.

  The mean is 20 70/3 30 100/3 hundredths. Its deviations from 80/3 are (-20, -10, 10, 20) / 3. The
  first two deviate from their mean by -1.5 -0.5 0.5 1.5, so their correlation with it is
  (30 + 5 + 5 + 30) / 3 / sqrt(5 * 1000 / 9) = 0.98995; the third one's, of deviations 1 0 0 -1, is
  (-20 - 20) / 3 / sqrt(2 * 1000 / 9) = -0.89443, which counts as 0.
  """
  rising, falling = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.3, 0.2])
  frames = np.arange(1, 5)
  traces = [(frames, np.stack([v, v], axis=1)) for v in (rising, rising, falling)]
  weights = labels.ewe_weights([timed(*traces, by_frame=True)])
  np.testing.assert_allclose(weights['0'], 70 / 3 / np.sqrt(5000 / 9))
  np.testing.assert_allclose(weights['1'], 0.9899494936611665)
  assert weights['2'].tolist() == [0, 0]
  assert -40 / 3 / np.sqrt(2000 / 9) == pytest.approx(-0.894427)


def test_ewe_weights_are_those_of_all_clips_and_of_shared_frames():
  """Against numpy's correlation over both clips; what only one annotated does not count."""
  rng = np.random.default_rng(1)
  truth = [rng.normal(size=(n, 2)) for n in (40, 25)]
  clips, rows = [], []
  for base in truth:
    own = [base + rng.normal(0, s, base.shape) for s in (0.2, 0.6, 1.5)]
    own[2][:5] = np.nan
    own[0][-6:], own[1][-6:] = np.nan, np.nan  # the third alone
    clips.append(timed(*[(np.arange(1, len(base) + 1), v) for v in own], by_frame=True))
    rows.append(np.stack(own))
  joined = np.concatenate(rows, axis=1)
  shared = np.isfinite(joined[..., 0]).sum(axis=0) >= 2
  mean = np.nanmean(joined, axis=0)
  for i, weight in labels.ewe_weights(clips).items():
    use = shared & np.isfinite(joined[int(i), :, 0])
    expected = [np.corrcoef(joined[int(i), use, d], mean[use, d])[0, 1] for d in range(2)]
    np.testing.assert_allclose(weight, expected)


def test_annotators_who_do_not_agree_have_no_weights():
  still = timed(([1, 2, 3], [0.5] * 6), ([1, 2, 3], [0.2] * 6), by_frame=True)
  with pytest.raises(InputError, match='no annotator agrees with the others in valence'):
    labels.ewe_weights([still])


def test_annotators_who_count_frames_at_other_strides_are_compared():
  """Each is joined by straight lines, as on frames: both are straight lines here."""
  every, fourth = np.arange(1, 26), np.arange(3, 25, 4)
  clip = timed(
    (every, np.repeat(every / 100, 2)), (fourth, np.repeat(0.1 + fourth / 100, 2)), by_frame=True
  )
  shared = np.arange(3, 24) / 100
  assert labels.agreement([clip]) == pytest.approx((labels.ccc(shared, shared + 0.1),) * 2)
  np.testing.assert_allclose([*labels.ewe_weights([clip]).values()], 1)
  assert labels.share_moments(clip)
  # A gap of 0.1 s is that of 2.5 frames at COMPARED_RATE.
  odd = timed((every[::4], np.zeros(14)), (fourth, np.zeros(12)), by_frame=True, gap=0.1)
  assert not labels.share_moments(odd)


def test_annotators_without_a_shared_moment_have_no_ewe_and_no_nan(untouched):
  (untouched / 'labels/a.csv').unlink()
  for name, first in (('ann', 1), ('bob', 8)):
    rows = [f'{k},0.{k},0.{k}' for k in range(first, first + 2)]
    write_rows(untouched / f'labels/a/{name}.csv', 'frame,valence,arousal', *rows)
  jobs = list(jobs_of(untouched).values())
  assert survey.agreement(jobs) == ['the annotators of 1 clips share no moment']
  with pytest.raises(InputError, match='no two annotators gave labels for the same moment'):
    plan(untouched, '--annotators', 'ewe')
  for name in ('ann', 'bob'):
    rows = [f'{k},0.1,0.{k}' for k in range(1, 4)]
    write_rows(untouched / f'labels/a/{name}.csv', 'frame,valence,arousal', *rows)
  said = survey.agreement(list(jobs_of(untouched).values()))
  assert said == [
    'annotators agree by a mean pairwise CCC of none in valence and 1.000 in arousal, over 1 clips '
    'with several'
  ]


def test_agreement_by_hand():
  """CCC of 1 2 3 and 2 3 4 tenths: 2 * 2/3 / (2/3 + 2/3 + 1) = 4/7; in arousal both have 1 2 3.

  The third annotator is alone in another clip, so there is one pair.
  """
  first, second = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3], [0.2, 0.1, 0.3, 0.2, 0.4, 0.3]
  clip = timed(([1, 2, 3], first), ([1, 2, 3], second), by_frame=True)
  alone = timed(([1, 2, 3], first), by_frame=True)
  assert labels.agreement([clip, alone]) == pytest.approx((4 / 7, 1))
  in_time = timed(([0, 0.2, 0.4], first), ([0, 0.2, 0.4], second))
  moments = np.linspace(0.1, 0.3, 11)
  expected = labels.ccc(moments, moments + 0.1)
  assert labels.agreement([in_time]) == pytest.approx((expected, 1))
  assert labels.agreement([alone]) is None


# Files of labels.


@pytest.mark.parametrize(
  'text',
  [
    'time,valence,arousal\n0.0,0.25,-0.5\n0.5,nan,\n1.0,1,.5\n',
    '\ufefftime;valence;arousal\r\n0,0;0,25;-0,5\r\n0,5;NaN;\r\n1,0;1;0,5\r\n',
    'Valence\tAROUSAL\tTimestamp\n0.25\t-5e-1\t0\n\tNA\t.5\n1\t0,5\t1\n',
    '"seconds", "valence" ,"arousal","rater"\n"0",0.25,-0.5,me\n0.5,,,me\n\n1,1,0.5,me\n',
    'time;arousal;valence;\n0;-0.5;0.25;\n0.5;;;\n1;0.5;1;\n',
  ],
)
def test_dialects_of_tables_say_the_same(tmp_path, text):
  (tmp_path / 'a.csv').write_text(text, encoding='utf-8', newline='')
  mistakes = Mistakes()
  found = label_files.read_label_file(tmp_path / 'a.csv', '', mistakes)
  mistakes.raise_if_any()
  assert not found.by_frame and found.places.tolist() == [0, 0.5, 1]
  np.testing.assert_array_equal(found.values, [[0.25, -0.5], [NAN, NAN], [1, 0.5]])


def test_a_cell_in_quotes_may_go_over_several_lines(tmp_path):
  rows = ['time,valence,arousal,note', '0,0,0,"a ""b"" ,', 'c"', '1,0,0,d"e', '2,0,0,f']
  write_rows(tmp_path / 'a.csv', *rows)
  found = label_files.read_label_file(tmp_path / 'a.csv', '', Mistakes())
  assert found.places.tolist() == [0, 1, 2] and found.lines == [2, 4, 5]


def test_a_range_is_mapped_by_a_straight_line(untouched):
  for name in 'abc':
    write_rows(untouched / f'labels/{name}.csv', 'frame,valence,arousal', '1,1,9', '2,5,3')
  job = jobs_of(untouched, '--label_range', 1, 9)['a']
  np.testing.assert_allclose(job.timed.traces[0].values, [[-1, 1], [0, -0.5]])
  write_rows(untouched / 'labels/b.csv', 'frame,valence,arousal', '1,1,9', '2,9.5,3', '3,2,0')
  with pytest.raises(InputError) as error:
    plan(untouched, '--label_range', 1, 9)
  assert re.search(
    r'2 labels are outside \[1, 9\]: \S*/labels/b.csv, line 3 \(9.5\), .*; name their scale ',
    str(error.value),
  )
  tolerant = jobs_of(untouched, '--label_range', 1, 9, '--tolerate', 'out_of_range')['b']
  np.testing.assert_allclose(tolerant.timed.traces[0].values, [[-1, 1], [NAN, -0.5], [-0.75, NAN]])


def test_frames_are_counted_from_0_in_all_files_if_one_has_a_frame_0(untouched, capsys):
  assert jobs_of(untouched)['a'].timed.traces[0].places.tolist() == list(range(1, 15))
  assert 'counted from 0' not in capsys.readouterr().out
  write_rows(untouched / 'labels/b.csv', 'frame,valence,arousal', '0,0,0', '1,0.1,0.1')
  found = jobs_of(untouched)
  assert '1 files of labels have a frame 0, such as' in capsys.readouterr().out
  assert found['b'].timed.traces[0].places.tolist() == [1, 2]
  assert found['a'].timed.traces[0].places.tolist() == list(range(2, 16))


def test_the_time_counts_where_both_are_there(untouched):
  rows = [f'{k},{k / 10},{k / 100},0' for k in range(5)]  # frames of 10 a second
  write_rows(untouched / 'labels/a.csv', 'frame,time,valence,arousal', *rows)
  found = jobs_of(untouched)['a'].timed
  assert not found.by_frame
  np.testing.assert_allclose(found.traces[0].places, np.arange(5) / 10)
  assert found.contradiction(np.arange(11) / 10) == pytest.approx(0)
  # At 25 frames a second, frame 4 is at 0.16 s, not 0.4 s; counted from 1, it would be at 0.12 s.
  assert found.contradiction(np.arange(11) / 25) == pytest.approx(6)
  one_based = timed((np.arange(3) / 25, [0.0] * 6))
  named = dataclasses.replace(one_based.traces[0], frames=np.array([1, 2, NAN]))
  one_based = dataclasses.replace(one_based, traces=(named,))
  assert one_based.contradiction(np.arange(11) / 25) == pytest.approx(0)


def test_several_annotators_have_a_folder(untouched):
  (untouched / 'labels/a.csv').unlink()
  for name, value in (('ann', 0.2), ('bob', 0.4)):
    rows = [f'{k / 25},{value + k / 100},{k / 100}' for k in range(14)]
    write_rows(untouched / f'labels/a/{name}.csv', 'time,valence,arousal', *rows)
  job = jobs_of(untouched)['a']
  assert [trace.annotator for trace in job.timed.traces] == ['ann', 'bob']
  assert job.clip.annotation == untouched / 'labels/a'
  found, _ = job.timed.on_frames(np.arange(14) / 25)
  np.testing.assert_allclose(found[:, 0], 0.3 + np.arange(14) / 100, atol=1e-7)
  for name, values in (('ann', (0.1, 0.2, 0.3)), ('bob', (0.1, 0.3, 0.2))):
    rows = [f'{k / 25},{value},{value}' for k, value in enumerate(values)]
    write_rows(untouched / f'labels/a/{name}.csv', 'time,valence,arousal', *rows)
  write_rows(untouched / 'labels/a/cid.csv', 'time,valence,arousal', '0,0.1,0.1', '0.04,0,0')
  np.testing.assert_array_equal(jobs_of(untouched)['a'].timed.weights, 1)
  # The mean is 0.1 0.5/3 0.25; cid falls where it rises, and so counts for nothing.
  mean = np.array([0.1, 0.5 / 3, 0.25])
  expected = [np.corrcoef(v, mean)[0, 1] for v in ((0.1, 0.2, 0.3), (0.1, 0.3, 0.2))]
  weighted = jobs_of(untouched, '--annotators', 'ewe')['a'].timed.weights
  np.testing.assert_allclose(weighted, np.repeat([*expected, 0], 2).reshape(3, 2))


def test_the_weights_that_are_printed_are_of_those_who_share_a_clip(untouched):
  (untouched / 'labels/a.csv').unlink()
  for name, values in (('ann', (0.1, 0.2, 0.3)), ('bob', (0.1, 0.3, 0.2))):
    rows = [f'{k},{value},{value}' for k, value in enumerate(values, 1)]
    write_rows(untouched / f'labels/a/{name}.csv', 'frame,valence,arousal', *rows)
  # The mean is 0.1 0.25 0.25, so both correlations with it are 0.75 / sqrt(2 * 0.375) = 0.866.
  # The CCC of the pair is 2 * 1 / (2 + 2) = 0.5.
  assert survey.agreement(list(jobs_of(untouched, '--annotators', 'ewe').values())) == [
    'annotators agree by a mean pairwise CCC of 0.500 in valence and 0.500 in arousal, over 1 '
    'clips with several',
    'weights of the annotators in valence and arousal: ann 0.866 and 0.866, bob 0.866 and 0.866',
  ]
  assert len(survey.agreement(list(jobs_of(untouched).values()))) == 1


# Splits.


def assign(source, *rows):
  write_rows(source / 'splits.csv', *rows)


def members(splits):
  return {split: [job.clip.name for job in jobs] for split, jobs in splits.items()}


def test_usual_names_of_splits_become_train_validation_and_test(untouched, capsys):
  """Else dev would train and train would validate: the last one in order of name does."""
  assign(untouched, 'Name;Split;Subject', 'a;Train;x', 'b;DEV;y', 'c;test;')
  (untouched / 'labels/c.csv').unlink()
  found = plan(untouched)
  assert members(found) == {'test': ['c'], 'train': ['a'], 'validation': ['b']}
  said = capsys.readouterr().out
  assert 'DEV is the split validation' in said and 'Train is the split train' in said
  assert [job.subject for jobs in found.values() for job in jobs] == [None, 'x', 'y']
  assert found['test'][0].timed is None and found['test'][0].is_recorded


@pytest.mark.parametrize(
  'splits, said',
  [
    (('train', 'eval', 'eval'), r'line 2: train would validate, as the last split by name; call'),
    (('holdout', 'Train', 'test'), r'line 3: train would validate'),
    (('train', 'dev', 'wild'), r'line 4: wild would validate'),
    (('day', 'dev', 'wild'), r'line 4: wild would validate'),
  ],
)
def test_names_that_would_let_another_split_validate_are_refused(untouched, splits, said):
  assign(untouched, 'name,split', *map(','.join, zip('abc', splits, strict=True)))
  with pytest.raises(InputError, match=f'splits.csv, {said}') as error:
    plan(untouched)
  assert '\n' not in str(error.value)
  for names in (('p', 'q', 'r'), ('extra', 'train', 'dev'), ('0', '1', '10')):
    assign(untouched, 'name,split', *map(','.join, zip('abc', names, strict=True)))
    assert len(plan(untouched)) == 3


def test_folds_by_number_stay_in_order(untouched):
  assign(untouched, 'name,fold', 'a,2', 'b,10', 'c,2')
  assert members(plan(untouched)) == {'fold10': ['b'], 'fold2': ['a', 'c']}
  assign(untouched, 'name,fold', 'a,2.0', 'b,10.0', 'c,2')  # as pandas writes them
  assert members(plan(untouched)) == {'fold10': ['b'], 'fold2': ['a', 'c']}


def test_without_splits_there_are_folds_of_subjects_by_a_seed(tmp_path, capsys):
  names = [f'clip{i:02d}' for i in range(20)]
  source = make_plain(tmp_path / 'set', videos=names, films=False)
  made = members(plan(source))
  said = capsys.readouterr().out
  assert '5 folds are made by --seed 0, and each of 20 subjects is in one' in said
  assert 'nothing says whom 20 of the clips show' in said
  assert list(made) == [f'fold{i}' for i in range(5)]
  assert [len(clips) for clips in made.values()] == [4] * 5 and made == members(plan(source))
  assert made != members(plan(source, '--seed', 1))
  subjects = [f'person {i % 7}' for i in range(20)]
  rows = [f'{name},{who}' for name, who in zip(names, subjects, strict=True)]
  assign(source, 'name,subject', *rows)
  capsys.readouterr()
  grouped = members(plan(source, '--folds', 3))
  assert 'nothing says whom' not in capsys.readouterr().out
  fold_of = {clip: fold for fold, clips in grouped.items() for clip in clips}
  assert len(grouped) == 3 and sorted(fold_of) == names
  for who in set(subjects):
    assert len({fold_of[n] for n, s in zip(names, subjects, strict=True) if s == who}) == 1
  assert len(plan(source, '--folds', 50)) == 7


def test_two_people_of_a_video_are_in_one_fold():
  clips = {'x_left': 'x', 'x_right': 'x', 'y': 'y', 'z': 'z'}
  groups = partition.group(clips, {'x_left': 'p', 'x_right': 'q', 'y': 'q', 'z': None})
  assert sorted(groups) == [['x_left', 'x_right', 'y'], ['z']]


def test_a_subject_in_two_splits_is_refused_unless_it_is_accepted(untouched):
  assign(untouched, 'name,split,subject', 'a,train,eve', 'b,validation,eve', 'c,train,')
  with pytest.raises(InputError) as error:
    plan(untouched)
  assert re.search(
    r'1 subject is in several splits.*: eve in train \(\S*splits.csv, line 2\) and validation '
    r'\(\S*splits.csv, line 3\); .*--tolerate subjects$',
    str(error.value),
  )
  assert len(plan(untouched, '--tolerate', 'subjects')) == 2


def test_two_people_of_a_video_in_two_splits_are_refused_unless_it_is_accepted(untouched):
  for name in ('left', 'right'):
    shutil.copy(untouched / 'labels/c.csv', untouched / f'labels/c_{name}.csv')
  (untouched / 'labels/c.csv').unlink()
  write_rows(untouched / 'persons.csv', 'name,face,video', 'c_left,left,c', 'c_right,right,c')
  assign(untouched, 'name,split', 'c_left,train', 'c_right,dev', 'a,train', 'b,dev')
  with pytest.raises(InputError) as error:
    plan(untouched)
  assert re.search(
    r'^1 video is in several splits, .*: c.avi in train \(\S*splits.csv, line 2\) and validation '
    r'\(\S*splits.csv, line 3\); .*--tolerate subjects$',
    str(error.value),
  )
  assert len(plan(untouched, '--tolerate', 'subjects')) == 2


# Persons.


def test_persons_say_whose_face_and_of_which_video(untouched):
  (untouched / 'labels/c.csv').rename(untouched / 'labels/c_left.csv')
  shutil.copy(untouched / 'labels/c_left.csv', untouched / 'labels/c_right.csv')
  write_rows(
    untouched / 'persons.csv', 'name,face,video', 'a,2,', 'c_left,LEFT,c', 'c_right,right,c.avi'
  )
  found = jobs_of(untouched)
  assert {name: job.face for name, job in found.items()} == {
    'a': '2', 'b': 'largest', 'c_left': 'left', 'c_right': 'right',
  }  # fmt: skip
  assert found['c_left'].clip.video == found['c_right'].clip.video == untouched / 'videos/c.avi'
  assert found['a'].clip.crops == untouched.parent / 'records/crops/a'
  cached = jobs_of(untouched, '--crops_cache', '/elsewhere')['a'].clip.crops
  assert cached == pathlib.Path('/elsewhere/a')


def test_faces_that_a_build_has_found_are_no_given_crops(untouched):
  """Also where the records are in the source, and whatever clips there were before."""
  for name in ('a', 'b', 'earlier'):
    (untouched / 'crops' / name).mkdir(parents=True)
    (untouched / 'crops' / name / '00001.png').touch()
  for name in ('a', 'earlier'):
    (untouched / 'crops' / name / 'made_from.json').touch()
  write_rows(untouched / 'persons.csv', 'name,face', 'a,2')
  for options in ((), ('--data_dir', untouched)):
    found = jobs_of(untouched, *options)
    assert {name: job.face for name, job in found.items()} == {'a': '2', 'b': None, 'c': 'largest'}
    assert found['b'].clip.crops == untouched / 'crops/b' and found['b'].crop_ids.tolist() == [1]
  assert found['a'].clip.crops == untouched / 'crops/a' and not found['a'].crop_ids.size


# Mistakes.


def set_labels(*rows):
  return lambda root: write_rows(root / 'labels/b.csv', *rows)


def set_splits(*rows):
  return lambda root: assign(root, *rows)


def set_persons(*rows):
  return lambda root: write_rows(root / 'persons.csv', *rows)


GOOD = 'frame,valence,arousal'
MISTAKES = {
  'header': (set_labels('1,0.5,0.5'), 'labels/b.csv, line 1: no column is called time or'),
  'no_header': (set_labels(''), 'labels/b.csv, line 1: expected a header'),
  'no_arousal': (set_labels('frame,valence', '1,0'), 'b.csv, line 1: no column is called arousal'),
  'twice': (set_labels('time,seconds,valence,arousal', '0,0,0,0'), 'columns time and seconds say'),
  'no_rows': (set_labels(GOOD), '1 file holds no labels: .*labels/b.csv'),
  'cells': (
    set_labels(GOOD, '1,0.5'),
    r'1 row has more or fewer cells .*b.csv, line 2 \(2 cells',
  ),
  'decimal_comma': (set_labels(GOOD, '1,0,5,0,5'), r'b.csv, line 2 \(5 cells\)'),
  'excel': (
    set_labels('sep=;', 'frame;valence;arousal', '1;0;0'),
    "labels/b.csv, line 1: 'sep=;' is a word to Excel alone; remove this line",
  ),
  'tabs': (
    lambda root: (root / 'labels/b.csv').rename(root / 'labels/b.txt'),
    'labels/b.txt is a table of labels and no export of ELAN; let its name end with .csv',
  ),
  'delimiters': (set_splits(',,', ',,'), 'splits.csv, line 1: expected a header'),
  'delimiters_first': (set_splits(',,', 'name,split'), 'splits.csv, line 1: expected a header'),
  'quote': (
    set_labels(f'{GOOD},note', '1,0,0,"x', '2,0,0,', '3,0,0,'),
    'labels/b.csv, line 2: a quote is opened and not closed',
  ),
  'quote_before_another': (
    set_splits('name,split', 'a,p', '"b,q', '"c",p'),
    'splits.csv, line 3: a quote is opened and not closed',
  ),
  'quote_in_a_long_file': (
    set_labels('frame,valence,"arousal', *['1,0.125,0.125'] * 20_000),
    'labels/b.csv, line 1: a quote is opened and not closed',
  ),
  'words': (
    set_labels(GOOD, '1,x,0', '2,0,inf'),
    r"2 cells of labels hold no number: .*2 \('x' is no number",
  ),
  'underscore': (set_labels(GOOD, '1,0_1,0'), r"b.csv, line 2 \('0_1' is no number"),
  'half_frame': (set_labels(GOOD, '1.5,0,0'), r"row has no number of a frame: .*2 \('1.5'\)"),
  'negative': (set_labels(GOOD, '-1,0,0'), r"no number of a frame: .*2 \('-1'\)"),
  'no_time': (set_labels('time,valence,arousal', ',0,0'), 'row has no time: .*b.csv, line 2'),
  'backwards': (set_labels(GOOD, '2,0,0', '1,0,0', '2,0,0'), r'2 rows do not come after .*3 \(1\)'),
  'outside': (
    set_labels(GOOD, '1,0,5'),
    r'1 label is outside \[-1, 1\]: .*b.csv, line 2 \(5\); .*label_range',
  ),
  'text': (
    lambda root: (root / 'labels/b.md').touch(),
    '1 entry does not end as files of labels do: .*b.md; .* .csv or .eaf',
  ),
  'two_files': (
    lambda root: (root / 'labels/b.txt').touch(),
    '1 clip has two files, or both a file and a folder of labels: .*labels/b.txt',
  ),
  'empty_folder': (lambda root: (root / 'labels/d').mkdir(), '1 folder holds no files of labels'),
  'both': (
    lambda root: write_rows(root / 'labels/b/ann.csv', GOOD, '1,0,0'),
    '1 clip has two files, or both a file and a folder of labels: .*labels/b.csv',
  ),
  'annotator_twice': (
    lambda root: [
      (root / 'labels/b.csv').unlink(),
      write_rows(root / 'labels/b/ann.csv', GOOD, '1,0,0'),
      write_rows(root / 'labels/b/ann.txt', GOOD, '1,0,0'),
    ],
    '1 file of labels is a second one of an annotator: .*labels/b/ann.txt',
  ),
  'mixed': (
    lambda root: [
      (root / 'labels/b.csv').unlink(),
      write_rows(root / 'labels/b/ann.csv', GOOD, '1,0,0'),
      write_rows(root / 'labels/b/bob.csv', 'time,valence,arousal', '1,0,0'),
    ],
    '1 clip has annotators who count frames and others .*ann.csv and .*bob.csv; write the same',
  ),
  'no_video': (
    lambda root: (root / 'videos/b.avi').unlink(),
    '1 file of labels has no video: .*labels/b.csv; videos are looked for in .*/videos',
  ),
  'no_labels': (
    lambda root: (root / 'labels/b.csv').unlink(),
    'clip has no labels and is not in the test split: b; to leave them out, add --tolerate unl',
  ),
  'parted': (
    lambda root: [
      write_rows(root / 'persons.csv', 'name,face,video', 'c_left,left,c'),
      (root / 'labels/c.csv').rename(root / 'labels/c_left.csv'),
      assign(root, 'name,split', 'a,p', 'b,q', 'c_left,p', 'c,q'),
    ],
    r'1 row has the name of a video whose people have other names: .*line 5 \(c\); write th',
  ),
  'parted_labels': (
    lambda root: [
      write_rows(root / 'persons.csv', 'name,face,video', 'c_left,left,c'),
      shutil.copy(root / 'labels/c.csv', root / 'labels/c_left.csv'),
    ],
    '1 file of labels has the name of a video whose people have other names: .*labels/c.csv; ',
  ),
  'two_videos': (
    lambda root: (root / 'videos/b.mp4').touch(),
    '1 video has the name of another one, but for the ending: .*b.avi and b.mp4',
  ),
  'folder': (lambda root: (root / 'videos/d').mkdir(), '1 folder is among the videos: .*/d;'),
  'no_videos': (lambda root: shutil.rmtree(root / 'videos'), 'videos is not a folder'),
  'split_of_nobody': (
    set_splits('name,split', 'a,p', 'b,q', 'c,p', 'd,q'),
    r'1 row has no video: .*splits.csv, line 5 \(d\)',
  ),
  'no_split': (set_splits('name,split', 'a,p', 'b,q'), '1 clip has no split: c in .*splits.csv;'),
  'named_twice': (
    set_splits('name,split', 'a,p', 'b,q', 'c,p', 'a,q'),
    r'1 clip is named twice: .*splits.csv, line 5 \(a\)',
  ),
  'split_name': (
    set_splits('name,split', 'a,my split', 'b,all', 'c,x'),
    r"2 rows have no usable name of a split or a fold: .*csv, line 2 \('my split'\), .*; such",
  ),
  'one_split': (
    set_splits('name,split', 'a,p', 'b,p', 'c,test'),
    r'fewer than two splits .* \(p\)',
  ),
  'no_columns': (
    set_splits('name,group', 'a,p'),
    'line 1: no column is called split or fold or sub',
  ),
  'split_and_fold': (
    set_splits('name,split,fold', 'a,p,1'),
    'columns split and fold say the same thing',
  ),
  'subject': (
    set_splits('name,subject', 'a,=cmd', 'b,x', 'c,-'),
    r"2 names are not usable: .*splits.csv, line 2 \('=cmd'\), .*; they begin with a letter",
  ),
  'clip': (
    lambda root: [
      path.rename(path.with_stem(f'={path.stem}'))
      for name in 'ab'
      for path in root.rglob(f'{name}.*')
    ],
    r"2 names are not usable: .*videos/=a.avi \('=a'\), .*; they begin with a letter",
  ),
  'person': (
    set_persons('name,face,video', '=c,left,c'),
    r"1 name is not usable: .*persons.csv, line 2 \('=c'\); they",
  ),
  'one_subject': (set_splits('name,subject', 'a,x', 'b,x', 'c,x'), 'clips are of one subject'),
  'face': (
    set_persons('name,face', 'a,biggest'),
    r"1 row has no usable face: .*persons.csv, line 2 \('bigg",
  ),
  'nobody': (
    set_persons('name,face', 'd,left'),
    r'1 row has no video: .*persons.csv, line 2 \(d\)',
  ),
  'name_of_a_video': (
    set_persons('name,face,video', 'c,right,c', 'a,left,c'),
    r'1 clip has the name of a video that is not theirs: .*line 3 \(a shows c.avi\); name',
  ),
  'no_name': (
    set_persons('name,face,video', 'c,right,c', ',left,c'),
    '1 row has no name of a clip: .*persons.csv, line 3$',
  ),
  'film': (set_persons('name,face,video', 'a,1,z'), r'no video: .*persons.csv, line 2 \(z\)'),
  'no_crops': (lambda root: (root / 'crops/b').mkdir(parents=True), 'crops/b holds no crops such'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_each_mistake_is_one_line_with_file_and_row(untouched, name):
  change, message = MISTAKES[name]
  change(untouched)
  with pytest.raises(InputError) as error:
    plan(untouched)
  assert re.search(message, str(error.value)) and '\n' not in str(error.value), error.value
  assert not (untouched.parent / 'records').exists()


def test_all_kinds_of_mistakes_are_told_at_once(untouched):
  """A line for each kind, which says how many there are; also what ends the reading of a file."""
  rows = [f'{k},x,0' for k in range(30)]
  set_labels('time,valence,arousal', *rows, ',0,0')(untouched)
  write_rows(untouched / 'labels/a.csv', 'frame,valence', '1,0')
  write_rows(untouched / 'labels/c.csv', GOOD, '1,0,7')
  assign(untouched, 'name,split', 'a,p', 'b,q', 'c,p', 'd,q')
  (untouched / 'videos/e.avi').touch()
  with pytest.raises(InputError) as error:
    plan(untouched)
  cells, *others = sorted(error.value.args, key=lambda line: not line.startswith('30 cells'))
  named = cells.count('b.csv, line')
  assert 0 < named < 30 and cells.endswith(f', ... and {30 - named} more'), cells
  for words in (
    '1 row has no video: ', '1 clip has no split: e', '1 row has no time: ',
    r'1 label is outside \[-1, 1\]: ', '.*a.csv, line 1: no column is called arousal',
  ):  # fmt: skip
    assert sum(bool(re.match(words, line)) for line in others) == 1, (words, others)
  assert len(others) == 5
  # Mistakes in the tables do not hide those in the labels either.
  assign(untouched, 'name', 'a')
  with pytest.raises(InputError) as error:
    plan(untouched)
  assert len(error.value.args) == 5
  assert any('no column is called split or' in line for line in error.value.args)


def test_a_name_may_have_the_ending_of_its_video(untouched):
  assign(untouched, 'name,split', 'a.avi,p', 'b,q', 'c.avi,p')
  write_rows(untouched / 'persons.csv', 'name,face', 'a.avi,left')
  assert members(plan(untouched)) == {'p': ['a', 'c'], 'q': ['b']}
  assert jobs_of(untouched)['a'].face == 'left'
  assign(untouched, 'name,split', 'a.avi,p', 'b,q', 'c.mp4,p')
  with pytest.raises(InputError, match=r'1 row has no video: .*line 4 \(c.mp4\)'):
    plan(untouched)


@pytest.mark.parametrize('forms', [('NFD', 'NFC'), ('NFC', 'NFD')])
def test_names_that_look_the_same_are_the_same(tmp_path, forms):
  """macOS codes an accent as a sign of its own; a clip has the name of its file, as it is."""
  film, table = (unicodedata.normalize(form, 'Zo\u00eb') for form in forms)
  source = make_plain(tmp_path / 'set', videos=(film, 'b'), films=False)
  assert film != table
  (source / f'labels/{film}.csv').rename(source / f'labels/{table}_2.csv')
  write_rows(source / 'persons.csv', 'name,face,video', f'{film}_2,left,{table}.avi')
  assign(source, 'name,split', f'{table}_2,train', 'b,dev')
  assert members(plan(source)) == {'train': [f'{film}_2'], 'validation': ['b']}
  (source / f'videos/{table}.avi').touch()
  with pytest.raises(InputError, match='1 video has the name of another one, but for the ending'):
    plan(source)


def test_crops_of_no_clip_are_refused_unless_they_are_accepted(untouched):
  (untouched / 'crops/A').mkdir(parents=True)
  (untouched / 'crops/A/00001.jpg').touch()
  with pytest.raises(InputError, match='1 folder of crops belongs to no clip: .*crops/A; .*unlist'):
    plan(untouched)
  assert len(jobs_of(untouched, '--tolerate', 'unlisted')) == 3


@pytest.mark.parametrize(
  'options',
  [
    ('--label_range', 1, 1),
    ('--label_gap', -1),
    ('--label_lag', 'nan'),
    ('--label_lag', 61),
    ('--folds', 1),
  ],
)
def test_options_out_of_range_are_refused(untouched, options):
  with pytest.raises(InputError, match=options[0]):
    plan(untouched, *options)


def test_what_is_unlisted_may_be_left_out(untouched):
  assign(untouched, 'name,split', 'a,p', 'b,q')
  assert members(plan(untouched, '--tolerate', 'unlisted')) == {'p': ['a'], 'q': ['b']}


# The whole way.


@pytest.mark.slow
def test_the_mini_set_gives_the_records_of_the_official_layout(tmp_path):
  """Byte for byte, where crops are given; the manifests differ in the source and the subjects."""
  made = {}
  for layout, name in (('official', 'affwild2'), ('plain', 'plain')):
    source, records = tmp_path / layout, tmp_path / f'{layout}_records'
    mini.generate(source, videos=17, seconds=6, workers=2, layout=layout)
    words = ['--layout', name, '--source', source, '--data_dir', records, '--workers', '2', *SIZES]
    assert build.main(list(map(str, words))) == 0
    made[layout] = {
      path.name: path.read_bytes() for path in manifest.version_folder(records).iterdir()
    }
  official, plain = (json.loads(made[layout].pop('manifest.json')) for layout in made)
  assert made['official'] == made['plain'] and len(made['plain']) == 9
  assert official.pop('source') != plain.pop('source')
  subjects = plain.pop('subjects')
  assert official == plain
  assert len(subjects) == 18 and all(clip == who for clip, who in subjects.items())
  assert manifest.read_manifest(tmp_path / 'plain_records')['subjects'] == subjects


def test_mini_in_another_layout_is_not_taken_for_complete(tmp_path):
  settings = mini.generate.__kwdefaults__
  assert settings['layout'] == 'official'
  (tmp_path / 'mini.json').write_text('{"rate": 15}')
  assert mini.read_settings(tmp_path / 'mini.json')['layout'] == 'official'


def test_subjects_of_a_manifest_are_checked(tmp_path):
  folder = tmp_path / manifest.NAME / manifest.VERSION
  folder.mkdir(parents=True)
  good = {
    'layout': {'length': 12, 'stride': 8, 'face': 16, 'features': {}},
    'max_rows': 100,
    'chunks': {'fold0': {'records': 0, 'clips': {'a': 0}}},
    'shards': {},
  }
  for subjects, message in (
    ({'a': 'eve'}, None),
    ({'b': 'eve'}, "'b' has a subject, but is not a clip of a split"),
    ({'a': '../eve'}, 'the subject of a: .* cannot be a name'),
    ({'a': 3}, 'the subject of a'),
    ([], 'manifest.json is damaged'),
  ):
    manifest.write_manifest(folder, good | {'subjects': subjects})
    if message is None:
      assert manifest.read_manifest(tmp_path)['subjects'] == subjects
    else:
      with pytest.raises(InputError, match=message):
        manifest.read_manifest(tmp_path)


def test_other_labels_or_subjects_are_another_source(untouched):
  def fingerprint(*options):
    from data_prep import contents

    return contents.fingerprint(plan(untouched, *options), [], {})[0]

  first = fingerprint()
  assert fingerprint() == first
  assert len({first, fingerprint('--label_gap', 2), fingerprint('--label_lag', 1)}) == 3
  assign(untouched, 'name,subject', 'a,x', 'b,y', 'c,z')
  second = fingerprint()
  write_rows(untouched / 'persons.csv', 'name,face', 'a,2')
  assert len({first, second, fingerprint()}) == 3
  assert len(shards.recorded(plan(untouched))) == 3
  assert not os.path.exists(untouched.parent / 'records')
