"""python -m data_prep.build: an Aff-Wild2 folder in, TFRecord files with a manifest out.

The same input gives the same bytes, whatever the number of workers and however often it was interrupted.
"""

import argparse
import collections
import functools
import hashlib
import importlib.metadata
import itertools
import os
import pathlib
import shutil
import sys

import numpy as np

from avjax import errors, files
from avjax.data import manifest, records
from avjax.errors import InputError
from avjax.media import faces
from data_prep import clips, features, parallel
from data_prep.sources import affwild2, annotations

TOLERABLE = ('unlisted', 'out_of_range', 'length')
PACKAGES = ('av', 'librosa', 'numpy', 'pillow', 'tensorflow-datasets')


def parse_args(argv=None):
  parser = argparse.ArgumentParser(prog='python -m data_prep.build', description=__doc__.splitlines()[0])
  parser.add_argument('--source', required=True, type=pathlib.Path, help='the Aff-Wild2 folder')
  parser.add_argument('--data_dir', required=True, type=pathlib.Path, help='where the records go')
  parser.add_argument('--length', type=int, default=300, help='frames a window')
  parser.add_argument('--stride', type=int, default=200, help='frames from one window to the next')
  parser.add_argument('--face', type=int, default=48, help='pixels a side of a face')
  parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes that decode clips')
  parser.add_argument('--max_shard_mib', type=int, default=150, help='largest size of one file')
  parser.add_argument('--tolerate', default='', help=f'comma list of what is otherwise refused: {", ".join(TOLERABLE)}')
  parser.add_argument('--features', nargs='+', action='extend', default=[], metavar='NAME=DIR',
                      help='features of other backbones: folders of one .npy a clip, row k - 1 for frame k')
  parser.add_argument('--videos', nargs='+', help='folders of videos, where not under their official names')
  parser.add_argument('--crops', nargs='+', help='folders of aligned crops, likewise')
  parser.add_argument('--annotations', help="the '<N>th ABAW Annotations' folder, likewise")
  parser.add_argument('--test_list', help='the list of test clips, likewise')
  args = parser.parse_args(argv)
  args.tolerate = sorted(filter(None, args.tolerate.split(',')))
  for option in args.tolerate:
    if option not in TOLERABLE:
      raise InputError(f'--tolerate {option} is unknown; it takes {", ".join(TOLERABLE)}')
  if min(args.length, args.stride, args.face, args.workers, args.max_shard_mib) < 1 or args.stride > args.length:
    raise InputError('sizes must be at least 1, and --stride at most --length so that no frame is left out')
  return args


def main(argv=None):
  args = parse_args(argv)
  splits = plan(args)
  layout = records.Layout(args.length, args.stride, args.face, features.widths(itertools.chain(*splits.values())))
  source = fingerprint(splits, args.tolerate)
  target = args.data_dir / manifest.NAME / manifest.VERSION
  with files.locked(args.data_dir, busy=f'another build is writing to {args.data_dir}'):
    if target.exists():
      return keep(target, layout, source, args.max_shard_mib)
    staging = args.data_dir / f'{manifest.NAME}.incomplete'
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
      made = build(splits, layout, staging, args.workers, args.max_shard_mib)
      made['source'], made['max_shard_mib'] = source, args.max_shard_mib
      manifest.write_manifest(staging / manifest.NAME / manifest.VERSION, made)
      target.parent.mkdir(exist_ok=True)
      (staging / manifest.NAME / manifest.VERSION).rename(target)
    except KeyboardInterrupt:
      print('interrupted: nothing was kept; the same command starts again', file=sys.stderr)
      return 130
    finally:
      shutil.rmtree(staging, ignore_errors=True)
  print(summary(made, target))
  return 0


def plan(args):
  """Checks all that can be checked without opening a video. Returns {split: list of clips.Job}."""
  roots = affwild2.find_roots(args.source, args.videos, args.crops, args.annotations, args.test_list)
  unreadable, folders = frozenset(faces.read_unreadable(args.source)), features.parse_folders(args.features)
  def job(clip):
    crop_ids = np.array(sorted(faces.list_crops(clip.crops)), np.int32)
    if not crop_ids.size:
      raise InputError(f'{clip.crops} holds no crops such as 00001.jpg')
    va, annotated = (None, None) if clip.annotation is None else annotations.read_annotation(
        clip.annotation, 'out_of_range' in args.tolerate)
    return clips.Job(clip, crop_ids, va, annotated, unreadable, features.find(folders, clip.name), 'length' in args.tolerate)
  listed = affwild2.list_clips(roots, 'unlisted' in args.tolerate)
  if not any(clip.annotation for clip in listed):
    raise InputError(f'{roots.annotations} holds no annotations')
  return {split: [job(clip) for clip in members] for split, members in affwild2.split_clips(listed).items()}


def fingerprint(splits, tolerate):
  """Returns a SHA-256 over what tells one source from another: names, annotations, sizes, features; no paths and no times."""
  digest = hashlib.sha256(repr(tolerate).encode())
  for split, jobs in splits.items():
    for job in jobs:
      broken = sorted(name for name in job.unreadable if name.startswith(f'{job.clip.name}/'))
      video = job.clip.video
      digest.update(repr((split, job.clip.name, video.name, video.stat().st_size, broken)).encode())
      digest.update(job.crop_ids.tobytes())
      if job.va is not None:
        digest.update(job.va.tobytes() + job.annotated.tobytes())
      for name, path in job.features.items():  # two backbones may give files of one size
        digest.update(f'{name} {files.sha256(path)}'.encode())
  return digest.hexdigest()


def keep(target, layout, source, max_shard_mib):
  """Accepts a finished data set of the same settings and source as the result; InputError for anything else."""
  if not (target / manifest.MANIFEST).is_file():
    raise InputError(f'{target} is there without a {manifest.MANIFEST}, so it was not made by this program; remove it')
  found = manifest.check_sizes(target)
  wanted = {'layout': vars(layout), 'source': source, 'max_shard_mib': max_shard_mib}
  differing = [key for key, value in wanted.items() if found.get(key) != value]
  if differing:
    raise InputError(f'{target} holds records of another {" and ".join(differing)}; '
                     'remove it or choose another --data_dir')
  print(f'{target} is complete and made from the same source with the same settings: nothing to do')
  return 0


def build(splits, layout, staging, workers, max_shard_mib):
  """Decodes all clips in a pool of processes, writes the shards under staging, and returns the manifest."""
  kept = {split: {job.clip.name: 0 for job in members} for split, members in splits.items()}
  splits = {split: [job for job in members if job.va is None or job.annotated.any()]
            for split, members in splits.items()}
  tally = collections.Counter()

  def examples(split, decoded):
    for clip in itertools.islice(decoded, len(splits[split])):
      kept[split][clip.name] = len(clip.frames)
      tally.update(faces_missing=int((~clip.face_present).sum()) - clip.unreadable, crops_unreadable=clip.unreadable,
                   audio_absent=int((~clip.audio_present).sum()), rows_beyond_video=clip.cut)
      for record in clips.clip_records(clip, layout):
        tally['log_mel_bytes'] += record['log_mel'].nbytes
        tally['max_rows'] = max(tally['max_rows'], len(record['log_mel']))
        yield f'{clip.name}/{record["window"]}', record

  decode = functools.partial(clips.decode_clip, layout=layout)
  with parallel.ordered(decode, list(itertools.chain(*splits.values())), workers, 'clip') as decoded:
    from data_prep import (
      tfds_builder,  # here, so that the workers and the checks above start without TensorFlow
    )
    # TFDS refuses an empty split. It takes the others one after another, so all of them can share one stream of clips.
    filled = {split: examples(split, decoded) for split, members in splits.items() if members}
    shards = tfds_builder.write(layout, filled, staging, max_shard_mib)
  folder = staging / manifest.NAME / manifest.VERSION
  described = {
      path.name: {'records': n, 'bytes': path.stat().st_size, 'sha256': files.sha256(path)}
      for split, counts in shards.items()
      for n, path in zip(counts, sorted(folder.glob(f'{manifest.NAME}-{split}.tfrecord-*')), strict=True)}
  return {
      'layout': vars(layout), 'max_rows': tally['max_rows'], 'log_mel_bytes': tally['log_mel_bytes'],
      'chunks': {split: {'records': sum(shards.get(split, [])), 'clips': kept[split]} for split in splits},
      'shards': described,
      'metadata': {path.name: files.sha256(path) for path in sorted(folder.glob('*.json'))},
      'masked': {name: tally[name]
                 for name in ('audio_absent', 'crops_unreadable', 'faces_missing', 'rows_beyond_video')},
      'versions': {name: importlib.metadata.version(name) for name in PACKAGES}}


def summary(made, target):
  counts = [(split, len(chunk['clips']), sum(chunk['clips'].values()), chunk['records'])
            for split, chunk in made['chunks'].items()]
  total = ('all', *map(sum, list(zip(*counts))[1:]))
  lines = [f'{"split":8}{"clips":>7}{"frames":>11}{"records":>9}']
  lines += [f'{split:8}{n:7,}{frames:11,}{windows:9,}' for split, n, frames, windows in [*counts, total]]
  size = sum(shard['bytes'] for shard in made['shards'].values())
  windowed = total[3] * made['layout']['length']
  masked = ', '.join(f'{name.replace("_", " ")} {n:,}' for name, n in made['masked'].items())
  lines += [f'features: {name}, {width} numbers a frame' for name, width in made['layout']['features'].items()]
  return '\n'.join([
      *lines, f'{len(made["shards"])} shards, {size / 1e6:,.1f} MB; masked frames: {masked}',
      f'log-mel: {made["log_mel_bytes"] / max(windowed, 1):.0f} bytes a frame (windows of 96 x 64 would take 12,288)',
      f'records: {target}'])


if __name__ == '__main__':
  errors.run_command(main)
