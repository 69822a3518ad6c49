import numpy as np
import pytest

from data_prep.windows import merge, window_indices


@pytest.mark.parametrize('n, starts', [(300, [0]), (301, [0, 1]), (500, [0, 200]), (501, [0, 200, 201]),
                                       (700, [0, 200, 400]), (1000, [0, 200, 400, 600, 700])])
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


def test_merge_averages_what_overlaps_in_float64():
  frames = np.array([[1, 2, 5], [2, 5, 9], [7, 0, 0]])
  real = np.array([[True] * 3, [True] * 3, [True, False, False]])
  values = np.float32([[1, 2, 3], [4, 6, 8], [10, 99, 99]])
  ids, means = merge(values, frames, real)
  np.testing.assert_array_equal(ids, [1, 2, 5, 7, 9])
  np.testing.assert_array_equal(means, [1, 3, 4.5, 10, 8])
  assert means.dtype == np.float64
  np.testing.assert_array_equal(merge(np.stack([values, -values], -1), frames, real)[1], np.stack([means, -means], -1))


def test_merge_undoes_the_cutting():
  n = 501
  index = window_indices(n)
  series = np.random.default_rng(0).standard_normal((n, 2))
  ids, merged = merge(series[index], index + 1, index >= 0)
  np.testing.assert_array_equal(ids, np.arange(1, n + 1))
  np.testing.assert_allclose(merged, series, rtol=1e-15)
