"""Decodes the clips of a data set and writes their records as shards, with their manifest."""

import collections
import functools
import importlib.metadata
import itertools
import secrets

from avjax import files
from avjax.data import manifest
from data_prep import clips, cluster, contents, parallel

PACKAGES = ('av', 'librosa', 'numpy', 'pillow', 'tensorflow-datasets')


def recorded(splits):
  """Returns the jobs of the clips that come into the records: those with annotated frames."""
  return [job for members in splits.values() for job in members if job.is_recorded]


def write(splits, layout, staging, *, workers, client, max_shard_mib):
  """Decodes all clips, and writes the shards under staging.

  Args:
    splits: {split: jobs} of the source.
    layout: the records.Layout.
    staging: folder that is made.
    workers: processes of this machine that decode, unless there is a client.
    client: of the Dask cluster that decodes (`cluster.connected`), or None.
    max_shard_mib: largest size of one file.

  Returns the manifest, without what identifies the source, and the contents of the clips' files.
  """
  kept = {split: {job.clip.name: 0 for job in members} for split, members in splits.items()}
  subjects = {
    job.clip.name: job.subject
    for members in splits.values()
    for job in members
    if job.subject is not None
  }
  splits = {split: recorded({split: members}) for split, members in splits.items()}
  tally, seen = collections.Counter(), {}

  def examples(split, decoded):
    for clip, contents_seen in itertools.islice(decoded, len(splits[split])):
      seen[clip.name] = contents_seen
      kept[split][clip.name] = len(clip.frames)
      tally.update(
        faces_missing=int((~clip.face_present).sum()) - clip.unreadable,
        crops_unreadable=clip.unreadable,
        audio_absent=int((~clip.audio_present).sum()),
        rows_beyond_video=clip.cut,
      )
      for record in clips.clip_records(clip, layout):
        tally['log_mel_bytes'] += record['log_mel'].nbytes
        tally['max_rows'] = max(tally['max_rows'], len(record['log_mel']))
        yield f'{clip.name}/{record["window"]}', record

  jobs = list(itertools.chain(*splits.values()))
  if client:
    # A random name: a job that a build which was killed has left running does not write here.
    clips_folder = staging / f'clips-{secrets.token_hex(8)}'
    decoding = cluster.ordered(jobs, layout, client, clips_folder)
  else:
    decode = functools.partial(contents.decode, layout=layout)
    decoding = parallel.ordered(decode, jobs, workers, 'clip')
  with decoding as decoded:
    # Imported late, so that the workers and the checks above start without TensorFlow.
    from data_prep import tfds_builder

    # TFDS refuses an empty split. It writes the others one after another, so all can share one
    # stream of clips.
    filled = {split: examples(split, decoded) for split, members in splits.items() if members}
    shards = tfds_builder.write(layout, filled, staging, max_shard_mib)
  made = describe(staging / manifest.NAME / manifest.VERSION, layout, shards, kept, tally)
  return (made | {'subjects': subjects} if subjects else made), seen


def describe(folder, layout, shards, kept, tally):
  """Returns the manifest of the records in a folder, without what identifies their source.

  Args:
    folder: of the shards.
    layout: the records.Layout.
    shards: {split: records in each of its shards}.
    kept: {split: {clip: frames kept}}.
    tally: what was counted while clips were decoded.
  """
  described = {
    path.name: {'records': n, 'bytes': path.stat().st_size, 'sha256': files.sha256(path)}
    for split, counts in shards.items()
    for n, path in zip(
      counts, sorted(folder.glob(f'{manifest.NAME}-{split}.tfrecord-*')), strict=True
    )
  }
  return {
    'layout': vars(layout),
    'max_rows': tally['max_rows'],
    'log_mel_bytes': tally['log_mel_bytes'],
    'chunks': {
      split: {'records': sum(shards.get(split, [])), 'clips': kept[split]} for split in kept
    },
    'shards': described,
    'metadata': {path.name: files.sha256(path) for path in sorted(folder.glob('*.json'))},
    'masked': {
      name: tally[name]
      for name in ('audio_absent', 'crops_unreadable', 'faces_missing', 'rows_beyond_video')
    },
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
  }
