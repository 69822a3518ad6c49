"""Breaks the scores of a partition down by clip, subject and group, with intervals.

It also says what post-processing would make of them. None of this has a part in the choice of the
best epoch: it is computed once, when results are written. For 400,000 frames of 100 clips and two
targets it takes about 2 s of one core, nearly all of it for the post-processing.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avjax import files
from avjax.errors import as_input_error
from avjax.evaluation import postprocessing, statistics
from avjax.evaluation.groups import Groups, grouped
from avjax.evaluation.postprocessing import Chain, Track
from avjax.evaluation.series import Series
from avjax.targets import TARGETS
from avjax.targets.metrics import METRICS

MOST = 2**53  # of a number in a chain that is read

Pair = tuple[np.ndarray, np.ndarray]  # predictions and labels of the same frames


def add_details(
  results: dict[str, Any],
  series: Mapping[str, Series],
  targets: Sequence[str],
  subjects: Mapping[str, str],
  *,
  groups: Groups | None = None,
  chains: Mapping[str, Chain] | None = None,
) -> None:
  """Adds to the results of a partition what `avjax.evaluation.results.write_results` describes.

  Args:
    results: what `avjax.evaluation.results.score` returns.
    series: {clip: Series}.
    targets: their names, in the order of the predictions.
    subjects: {clip: subject}, as far as they are known.
    groups: what `read_groups` returns.
    chains: {target: Chain} fitted on another partition; None fits them on this one, such that no
      clip or subject has a part in its own.
  """
  clips = [clip for clip, s in series.items() if s.annotated.any()]
  if not clips:
    return
  known = {clip: subjects[clip] for clip in clips if clip in subjects}
  units = gather(clips, known)
  kinds = {kind for kind, _ in units}
  results['intervals'] = {
    'unit': kinds.pop() if len(kinds) == 1 else 'subject or clip',
    'units': len(units),
    'level': statistics.LEVEL,
    'resamples': statistics.RESAMPLES,
    'seed': statistics.SEED,
    'least_units': statistics.LEAST_UNITS,
  }
  if known:
    results['subjects'] = len(set(known.values()))
  if groups:
    results['ungrouped'] = len(set(clips) - grouped(groups))
  for i, target in enumerate(targets):
    found = results[target]
    pairs = {
      clip: (series[clip].prediction[mask, i], series[clip].labels[mask, i])
      for clip in clips
      for mask in [series[clip].annotated]
    }
    found |= break_down(pairs, known, groups or {}, TARGETS[target].metrics)
    if 'ccc' in TARGETS[target].metrics and (chains is None or target in chains):
      tracks = [
        [postprocessing.make_track(series[clip], i) for clip in members]
        for members in units.values()
      ]
      chain = chains[target] if chains else None
      if chain or len(tracks) > 1:
        found['post_processing'] = post_process(tracks, chain, results['intervals']['unit'])


def break_down(
  pairs: Mapping[str, Pair], subjects: Mapping[str, str], groups: Groups, names: Sequence[str]
) -> dict[str, Any]:
  """Returns the scores of one target by clip, subject and group, and the intervals of the whole.

  Args:
    pairs: {clip: (prediction, labels)} of its annotated frames, (n,) each.
    subjects: {clip: subject}, as far as they are known.
    groups: what `read_groups` returns; {} for none.
    names: of the metrics.

  Without subjects or groups, there is no such entry.
  """
  clips = {clip: describe(pairs, [clip], {}, names) for clip in pairs}
  found: dict[str, Any] = {
    'intervals': intervals(pairs, list(pairs), subjects, names),
    'clips': clips,
    'mean_over_clips': {
      name: float(np.mean([row[name] for row in clips.values()])) for name in names
    },
  }
  if subjects:
    found['subjects'] = {
      name: describe(pairs, members, {}, names)
      for (kind, name), members in sorted(gather(list(pairs), subjects).items())
      if kind == 'subject'
    }
  if groups:
    found['groups'] = {
      column: {
        group: describe(pairs, members, subjects, names)
        | {'intervals': intervals(pairs, members, subjects, names)}
        for group, listed in sorted(by_group.items())
        if (members := sorted(pairs.keys() & listed))
      }
      for column, by_group in groups.items()
    }
  return found


def gather(clips: Sequence[str], subjects: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
  """Returns {('subject', its name) or ('clip', its name): clips}, the clips of each unit."""
  units: dict[tuple[str, str], list[str]] = {}
  for clip in clips:
    key = ('subject', subjects[clip]) if clip in subjects else ('clip', clip)
    units.setdefault(key, []).append(clip)
  return units


def describe(pairs, clips, subjects, names) -> dict[str, Any]:
  """Counts clips, frames and known subjects, and computes the metrics over all these frames."""
  joined = postprocessing.join(pairs[clip] for clip in clips)
  counts = {'clips': len(clips), 'frames': len(joined[0])}
  if known := {subjects[clip] for clip in clips if clip in subjects}:
    counts['subjects'] = len(known)
  return counts | {name: METRICS[name](*joined) for name in names}


def intervals(pairs, clips, subjects, names) -> dict[str, list[float]]:
  """Returns {metric: [low, high]} over some clips, as `statistics.intervals` does."""
  units = gather(clips, subjects).values()
  joined = [postprocessing.join(pairs[clip] for clip in members) for members in units]
  return statistics.intervals(joined, names)


def post_process(
  units: Sequence[Sequence[Track]], chain: Chain | None, unit: str
) -> dict[str, Any]:
  """Returns CCC after each step of the post-processing, and on what its parameters were fitted.

  Args:
    units: the tracks of each unit.
    chain: fitted on the validation partition; None fits one for each unit on the others.
    unit: what a unit is, in words.

  Returns {'fitted': on what, 'ccc': {step: CCC after it and those before}, 'interval': that of the
  last CCC, [low, high] or None, 'parameters': of the chain; one on all units if none is given}.
  """
  if chain:
    own, fitted = [chain] * len(units), 'on the validation partition'
  else:
    own, fitted = postprocessing.fit_on_others(units), f'without the {unit} that is scored'
    chain = postprocessing.fit_all(units)
  smooth = [
    [postprocessing.filtered(track, float(each.median)) for track in tracks]
    for tracks, each in zip(units, own, strict=True)
  ]
  scores, pairs = {}, []
  for k, step in enumerate(postprocessing.STEPS, 1):
    pairs = [
      postprocessing.join(postprocessing.finish(track, each.first(k)) for track in tracks)
      for tracks, each in zip(smooth, own, strict=True)
    ]
    scores[step] = METRICS['ccc'](*postprocessing.join(pairs))
  return {
    'fitted': fitted,
    'ccc': scores,
    'interval': statistics.intervals(pairs, ['ccc']).get('ccc'),
    'parameters': chain._asdict(),
  }


def read_chains(path: pathlib.Path, epoch: int, fold: int) -> dict[str, Chain]:
  """Reads the post-processing in the results of the validation partition, {target: Chain}.

  Returns {} if there are no such results of this epoch and fold. Raises InputError for parameters
  that no evaluation writes.
  """
  if not path.exists():
    return {}
  results = files.read_json(path)
  if (results.get('best_epoch'), results.get('fold')) != (epoch, fold):
    return {}
  chains = {}
  with as_input_error(f'{path} is damaged; python -m avjax.evaluate {path.parent} writes it again'):
    for target in TARGETS.keys() & results.keys():
      if 'post_processing' in results[target]:
        parameters = results[target]['post_processing']['parameters']
        numbers = [parameters[name] for name in Chain._fields]
        if not all(type(x) in (int, float) and math.isfinite(x) and abs(x) < MOST for x in numbers):
          raise ValueError('post-processing with other parameters than numbers')
        chains[target] = Chain(*numbers)
  return chains
