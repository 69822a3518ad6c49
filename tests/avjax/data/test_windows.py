import numpy as np
import pytest

from avjax.data.windows import Merger, window_indices


@pytest.mark.parametrize(
  'n, starts',
  [
    (300, [0]),
    (301, [0, 1]),
    (500, [0, 200]),
    (501, [0, 200, 201]),
    (700, [0, 200, 400]),
    (1000, [0, 200, 400, 600, 700]),
  ],
)
def test_windows_start_every_stride_and_the_last_one_ends_at_the_end(n, starts):
  index = window_indices(n, 300, 200)
  np.testing.assert_array_equal(index, np.array(starts)[:, None] + np.arange(300))
  assert index[-1, -1] == n - 1


def test_a_short_clip_is_padded_at_its_end():
  np.testing.assert_array_equal(window_indices(3, 5, 2), [[0, 1, 2, -1, -1]])
  assert window_indices(0, 5, 2).shape == (0, 5)


def test_every_frame_is_in_a_window():
  for n in range(1, 60):
    index = window_indices(n, 12, 8)
    assert set(index[index >= 0]) == set(range(n))


def merged(windows):
  """windows: [(frames, values)]."""
  merger = Merger()
  for frames, values in windows:
    merger.add(
      np.asarray(frames, int),
      {'x': np.asarray(values), 'pair': np.stack([values, -np.asarray(values)], axis=-1)},
    )
  ids, means = merger.means()
  np.testing.assert_array_equal(means['pair'], np.stack([means['x'], -means['x']], axis=-1))
  return ids, means['x']


def test_merging_averages_what_overlaps_in_float64():
  ids, means = merged(
    [
      ([1, 2, 5], np.float32([1, 2, 3])),
      ([2, 5, 9], np.float32([4, 6, 8])),
      ([7], np.float32([10])),
      ([], np.float32([])),
    ]
  )
  np.testing.assert_array_equal(ids, [1, 2, 5, 7, 9])
  np.testing.assert_array_equal(means, [1, 3, 4.5, 10, 8])
  assert means.dtype == np.float64


def test_merging_undoes_the_cutting_in_any_order():
  n, rng = 501, np.random.default_rng(0)
  index = window_indices(n, 300, 7)
  series = rng.standard_normal(n)
  for order in (np.arange(len(index)), rng.permutation(len(index))):
    ids, means = merged([(row + 1, series[row]) for row in index[order]])
    np.testing.assert_array_equal(ids, np.arange(1, n + 1))
    np.testing.assert_allclose(means, series, rtol=1e-14)
  assert merged([(np.arange(5), np.ones(5))])[1].tolist() == [1] * 5


def test_what_is_kept_grows_with_frames_not_with_windows():
  """It has at most a quarter more rows than frames, and is seldom copied."""
  merger, sizes = Merger(), set()
  for first in range(0, 20_000, 4):
    merger.add(first + np.arange(300), {'x': np.ones(300)})
    size = merger.totals['x'].size
    assert first + 300 <= size <= (first + 300) * 5 / 4
    sizes.add(size)
  assert len(sizes) < 25
