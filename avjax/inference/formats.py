"""Writes what is predicted for a video in the formats of other people's programs.

They are Parquet, the annotations of ELAN, and WebVTT. In ELAN and WebVTT, which have a text for a
stretch of time and no curves, that is the mean over each second.
"""

from __future__ import annotations

import datetime
import html
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import numpy as np

import avjax
from avjax import errors
from avjax.errors import InputError, one_line
from avjax.inference.prediction import VideoPrediction
from avjax.targets import TARGETS

SECONDS = 1  # that an annotation of ELAN or a cue of WebVTT lasts
EAF_SCHEMA = 'http://www.mpi.nl/tools/elan/EAFv3.0.xsd'  # the name that ELAN gives it, not fetched
# {ending: MIME type of ELAN}; it takes other files for a film
MEDIA_TYPES = {
  '.mp4': 'video/mp4',
  '.mpg': 'video/mpeg',
  '.mpeg': 'video/mpeg',
  '.mov': 'video/quicktime',
  '.wav': 'audio/x-wav',
  **dict.fromkeys(('.mp3', '.m4a', '.aac', '.flac', '.ogg', '.opus'), 'audio/*'),
}
SCHEMA_INSTANCE = 'http://www.w3.org/2001/XMLSchema-instance'
CSV_READER = 'mpi.eudico.client.annotator.timeseries.csv.CSVServiceProvider'  # within ELAN


def check_formats(formats) -> None:
  """Raises InputError unless `formats` are names of FORMATS."""
  if isinstance(formats, str):
    raise InputError(f'formats are a list of names, not {one_line(repr(formats))}')
  for name in formats:
    if name not in FORMATS:
      raise InputError(
        f'--formats {one_line(name)} is unknown; it takes {", ".join(FORMATS)}, and the CSV is '
        'always written'
      )


def write_parquet(
  result: VideoPrediction, path: pathlib.Path, outputs: dict[str, pathlib.Path], target
) -> None:
  """Writes the columns of the CSV as Parquet, and what its comments say as metadata.

  A number that the CSV leaves empty is null. The schema's metadata have the key `avjax`, JSON of
  {'version': ..., 'video': ..., 'notes': [...]}; those of a field have the key `unit`.

  Args:
    result: what is predicted.
    path: the video.
    outputs: what `outputs.output_paths` returns.
    target: the file to write.
  """
  import pyarrow
  from pyarrow import parquet

  columns = result.columns()
  about = {
    'version': avjax.__version__,
    'video': errors.visible(os.fsencode(path.name).decode('utf-8', 'replace')),
    'notes': [errors.visible(note) for note in result.notes],
  }
  arrays = [pyarrow.array(values, from_pandas=True) for values in columns.values()]
  fields = [
    pyarrow.field(name, array.type, metadata={'unit': unit(name)})
    for name, array in zip(columns, arrays, strict=True)
  ]
  schema = pyarrow.schema(fields, metadata={'avjax': json.dumps(about)})
  with open(target, 'wb') as file:  # pyarrow opens no name of bytes that are not UTF-8
    parquet.write_table(pyarrow.table(arrays, schema=schema), file)


def unit(name: str) -> str:
  """Returns the unit or the range of a column."""
  if name in TARGETS:
    return f'{TARGETS[name].lowest:g} to {TARGETS[name].highest:g}'
  if name.startswith('gate_'):
    return 'share of trust, 0 to 1'
  return {'frame': 'number of the frame, from 1', 'time': 's'}.get(name, 'true or false')


def write_eaf(
  result: VideoPrediction, path: pathlib.Path, outputs: dict[str, pathlib.Path], target
) -> None:
  """Writes annotations for ELAN, format 3.0: a tier for each target, linked to video and CSV.

  An annotation is the mean of one second, with three decimals; a second without predictions has
  none. The linked file *_tsconf.xml, see `write_curves`, makes ELAN also draw the CSV as curves.
  Source: EAFv3.0.xsd, and the paths as ELAN itself writes and reads them. Arguments as in
  `write_parquet`.
  """
  document = ElementTree.Element(
    'ANNOTATION_DOCUMENT',
    {
      'AUTHOR': 'avjax',
      'DATE': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'FORMAT': '3.0',
      'VERSION': '3.0',
      'xmlns:xsi': SCHEMA_INSTANCE,
      'xsi:noNamespaceSchemaLocation': EAF_SCHEMA,
    },
  )
  header = add(document, 'HEADER', MEDIA_FILE='', TIME_UNITS='milliseconds')
  folder = outputs['.eaf'].parent
  kind = MEDIA_TYPES.get(path.suffix.lower(), 'video/*')
  media = {'MEDIA_URL': url(path), 'RELATIVE_MEDIA_URL': url(path, folder)}
  add(header, 'MEDIA_DESCRIPTOR', MIME_TYPE=kind, **media)
  for linked, kind in (('csv', 'text/plain'), ('_tsconf.xml', 'text/xml')):
    link = {'LINK_URL': url(outputs[linked]), 'RELATIVE_LINK_URL': url(outputs[linked], folder)}
    add(header, 'LINKED_FILE_DESCRIPTOR', MIME_TYPE=kind, **link)
  add(header, 'PROPERTY', NAME='avjax').text = errors.visible('; '.join(result.notes))
  found = [
    (name, start, end, f'{values[name]:.3f}')
    for start, end, values in means(result)
    for name in values
  ]
  add(header, 'PROPERTY', NAME='lastUsedAnnotationId').text = str(len(found))
  order = add(document, 'TIME_ORDER')
  tiers = {
    name: add(document, 'TIER', TIER_ID=name, ANNOTATOR='avjax', LINGUISTIC_TYPE_REF='prediction')
    for name in result.predictions
  }
  slots = []
  for k, (name, start, end, text) in enumerate(found, 1):
    annotation = add(
      add(tiers[name], 'ANNOTATION'),
      'ALIGNABLE_ANNOTATION',
      ANNOTATION_ID=f'a{k}',
      TIME_SLOT_REF1=f'ts{2 * k - 1}',
      TIME_SLOT_REF2=f'ts{2 * k}',
    )
    add(annotation, 'ANNOTATION_VALUE').text = text
    slots += [(start, f'ts{2 * k - 1}'), (end, f'ts{2 * k}')]
  for time, slot in sorted(slots, key=lambda slot: slot[0]):
    add(order, 'TIME_SLOT', TIME_SLOT_ID=slot, TIME_VALUE=str(time))
  add(
    document,
    'LINGUISTIC_TYPE',
    LINGUISTIC_TYPE_ID='prediction',
    TIME_ALIGNABLE='true',
    GRAPHIC_REFERENCES='false',
  )
  write_xml(document, target)


def write_curves(
  result: VideoPrediction, path: pathlib.Path, outputs: dict[str, pathlib.Path], target
) -> None:
  """Writes the settings by which ELAN's Timeseries Viewer draws the targets of the CSV.

  Source: TSConfigurationEncoder and CSVReader of ELAN: columns are counted from 0, lines that
  begin with # are passed over, and times with a point are seconds. Arguments as in
  `write_parquet`.
  """
  columns = list(result.columns())
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  settings = ElementTree.Element('timeseries', {'date': now, 'version': '1.0'})
  source = add(
    settings,
    'tracksource',
    **{
      'source-url': url(outputs['csv']),
      'sample-type': 'Discontinuous Rate',  # each value at its own time
      'time-column': str(columns.index('time')),
    },
  )
  add(source, 'property', key='provider', value=CSV_READER)
  for name in result.predictions:
    declared = TARGETS[name]
    track = add(source, 'track', name=name, derivative='0')
    add(track, 'property', key='detect-range', value='false')
    position = add(track, 'sample-position')
    add(position, 'pos', row='0', col=str(columns.index(name)))
    add(track, 'description').text = f'{name}, predicted by avjax'
    add(track, 'units').text = unit(name)
    add(track, 'range', min=str(float(declared.lowest)), max=str(float(declared.highest)))
    colour = declared.colour.removeprefix('#')
    add(track, 'color').text = ','.join(str(int(colour[i : i + 2], 16)) for i in (0, 2, 4))
  write_xml(settings, target)


def write_vtt(
  result: VideoPrediction, path: pathlib.Path, outputs: dict[str, pathlib.Path], target
) -> None:
  """Writes subtitles in WebVTT: the mean of each target over one second.

  A second without predictions has no cue. Source: W3C, WebVTT. Arguments as in `write_parquet`.
  """
  video = os.fsencode(path.name).decode('utf-8', 'replace')
  about = html.escape(errors.visible('; '.join([video, *result.notes])), quote=False)
  blocks = ['WEBVTT', f'NOTE avjax: {about}']
  for start, end, values in means(result):
    if values:
      lines = [f'{name} {value:+.3f}' for name, value in values.items()]
      blocks.append('\n'.join([f'{clock_time(start)} --> {clock_time(end)}', *lines]))
  target.write_text('\n\n'.join(blocks) + '\n', encoding='utf-8')


def means(result: VideoPrediction) -> Iterator[tuple[int, int, dict[str, float]]]:
  """Yields (start, end, {target: mean}) for each second that has a frame.

  start, end: in milliseconds; the last second ends with the film. Targets without a prediction in
  it are absent.
  """
  times = result.times
  frame = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else SECONDS
  film_end = round(1000 * (times[-1] + frame))
  # Times are rounded to a microsecond, so that the frame at 3 s is not the last of the second.
  second = np.floor(np.round(times / SECONDS, 6)).astype(int)
  for k in np.unique(second):
    values = {name: p[second == k] for name, p in result.predictions.items()}
    found = {name: p[~np.isnan(p)] for name, p in values.items()}
    start, end = round(1000 * SECONDS * k), round(1000 * SECONDS * (k + 1))
    yield (
      start,
      min(end, film_end),
      {name: float(p.mean()) for name, p in found.items() if len(p)},
    )


def clock_time(milliseconds: int) -> str:
  """Returns a time as WebVTT writes it, such as 01:02:03.450."""
  seconds, rest = divmod(milliseconds, 1000)
  return f'{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}'


def url(path: pathlib.Path, folder: pathlib.Path | None = None) -> str:
  """Returns the address of a file as ELAN writes it: it takes % as it stands and decodes nothing.

  Characters that do not print, which XML may not hold, are percent-encoded all the same; ELAN then
  asks where the file is.

  folder: the address is relative to it; by default it is absolute.
  """
  if folder:
    text = os.path.relpath(path, folder)
    text = text if text.startswith('../') else f'./{text}'
  else:
    text = f'file://{os.path.abspath(path)}'
  return ''.join(
    c if c.isprintable() else ''.join(f'%{byte:02X}' for byte in os.fsencode(c)) for c in text
  )


def add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
  """Adds an element and returns it."""
  return ElementTree.SubElement(parent, tag, attributes)


def write_xml(root: ElementTree.Element, target: pathlib.Path) -> None:
  """Writes a document, with an element on each line."""
  tree = ElementTree.ElementTree(root)
  ElementTree.indent(tree)
  tree.write(target, encoding='UTF-8', xml_declaration=True)


Writer = Callable[[VideoPrediction, pathlib.Path, dict[str, pathlib.Path], pathlib.Path], None]

# {ending of a file: what writes it}
WRITERS: dict[str, Writer] = {
  '.parquet': write_parquet,
  '.eaf': write_eaf,
  '_tsconf.xml': write_curves,
  '.vtt': write_vtt,
}

# {name for --formats: endings of its files}
FORMATS = {'parquet': ('.parquet',), 'eaf': ('.eaf', '_tsconf.xml'), 'vtt': ('.vtt',)}
