"""Tests that the benchmark of the reader reads every record that it makes."""

import pytest

from benchmarks import reading


@pytest.mark.slow
def test_the_benchmark_reads_what_it_makes(tmp_path, capsys):
  found = reading.measure_reader(tmp_path, small=True)
  shards = sum(path.stat().st_size for path in tmp_path.rglob('affwild2-*'))
  assert found['records'] == 36 and found['bytes_per_record'] == round(shards / 36)
  hosts = found.pop('hosts')
  assert min(found.values()) > 0 and list(hosts) == [1, 2, 4, 8]
  assert capsys.readouterr().out.count('clips/s, the first batch after') == 2
