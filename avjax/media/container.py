"""Opens media files with PyAV and chooses their tracks of film and sound."""

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Iterator

import av
from av.stream import Disposition

from avjax.errors import InputError, one_line
from avjax.media import bounds
from avjax.media.picture import HDR

# FFmpeg's names of what is read: containers of film and sound, streams without one, and pictures.
# Left out is what names other files, such as playlists and lists of pictures (concat, hls, dash,
# sdp, image2, vobsub, mlv), what has no mark by which it could be known, text, and devices.
FORMATS = (
  'aa aac aax ac3 adx aea aiff amr ape apng asf au av1 avi avs2 avs3 bmp_pipe bonk caf cavsvideo '
  'cine dhav dirac dnxhd dsf dss dts dtshd dv eac3 evc flac flic flv frm gif gxf h261 h263 h264 '
  'hevc iamf iff ircam ivf ivr j2k_pipe jpeg_pipe jpegls_pipe jpegxl_anim jpegxl_pipe kux lc3 '
  'live_flv loas lvf lxf m4v matroska,webm mjpeg mjpeg_2000 mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 '
  'mpc mpc8 mpeg mpegts mpegvideo mpjpeg mtv mxf mxg nc nistsphere nsv nut nuv obu ogg oma osq '
  'pam_pipe pbm_pipe pgm_pipe pgmyuv_pipe png_pipe ppm_pipe pva pvf qcp qoa qoi_pipe r3d rm roq '
  'rpl ser shn sol sox spdif swf tak tiff_pipe truehd tta ty vc1 vc1test vivo voc vqf vvc w64 wav '
  'webp_pipe wsd wtv wv xwma yuv4mpegpipe'
)
# FFmpeg gets an open file in place of a name, and may use no protocol but that for open files: no
# contents of a file can make it open another one, and no name can choose its format.
OPTIONS = {
  'format_whitelist': FORMATS.replace(' ', ','),
  'protocol_whitelist': 'fd',
  'enable_drefs': '0',  # of MOV: names of files in which its frames are
  'use_absolute_path': '0',
  'max_pixels': str(bounds.CODED_PIXELS),
}
LANGUAGE = re.compile('[A-Za-z0-9-]{1,35}')  # a tag of BCP 47
# What FFmpeg says where no format fits.
UNKNOWN = (av.error.ArgumentError, av.error.InvalidDataError)

# FFmpeg's reports of damage stay unheard, as PyAV has it by default. With av.logging.set_level they
# would go through Python, and the threads of a decoder that is closed early would wait for the
# interpreter while it waits for them.


@dataclasses.dataclass(frozen=True)
class Contents:
  """Describes the tracks of a file; the numbers of tracks count from 1.

  films, sounds: for each track of film and of sound, its language or '' where none is given.
    Cover pictures are not films.
  film, sound: the number of the track that is read; None where there is none.
  hdr: PQ or HLG where the film has these transfer curves, otherwise empty.
  """

  films: tuple[str, ...]
  sounds: tuple[str, ...]
  film: int | None
  sound: int | None
  hdr: str


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]):
  """Opens a media file as an av.container.InputContainer.

  Raises InputError for everything that FFmpeg cannot read, also later in the context.
  """
  try:
    with regular_file(path) as file, container_in(path, file) as container:
      yield container
  except InputError:
    raise
  except MemoryError as error:
    raise InputError(
      f'{path} cannot be read as a video: it takes {bounds.TOO_MUCH_MEMORY}'
    ) from error
  except (av.error.FFmpegError, OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or one_line(error)
    raise InputError(f'{path} cannot be read as a video: {reason}') from error


def regular_file(path):
  """Opens a file for reading; InputError for a pipe, device, socket or folder, which may block."""
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise InputError(f'{path} cannot be read as a video: it is not a regular file')
  return open(path, 'rb', buffering=0)


def container_in(path, file):
  """Returns the container in an open file; InputError where it has none of FORMATS."""
  try:
    return av.open('fd:', 'r', None, OPTIONS | {'fd': str(file.fileno())})
  except UNKNOWN as error:
    raise InputError(
      f'{path} cannot be read as a video: it is damaged, or none of the kinds of files that are '
      'read; convert it or leave it out'
    ) from error


def read_contents(
  path: str | os.PathLike[str], film: int | None = None, sound: int | None = None
) -> Contents:
  """Returns the Contents of a file.

  film, sound: the number of the track to read, from 1; None chooses as players do.
  Raises InputError where there is no such track.
  """
  with opened(path) as container:
    films, sounds = film_tracks(container), sound_tracks(container)
    chosen = film_track(path, container, film)
    return Contents(
      tuple(map(language_of, films)),
      tuple(map(language_of, sounds)),
      number_of(chosen, films),
      number_of(sound_track(path, container, sound), sounds),
      HDR.get(chosen.codec_context.color_trc, '') if chosen is not None else '',
    )


def language_of(stream) -> str:
  """Returns the language of a stream, '' where its tag is none."""
  return stream.language if LANGUAGE.fullmatch(stream.language or '') else ''


def number_of(stream, tracks):
  """Returns the number, from 1, of a stream among tracks; None for None."""
  return None if stream is None else [track.index for track in tracks].index(stream.index) + 1


def film_tracks(container) -> list:
  """Returns the video streams of a container that are films; the picture of a cover is not."""
  return [
    stream
    for stream in container.streams.video
    if stream.codec_context and not stream.disposition & Disposition.attached_pic
  ]


def sound_tracks(container) -> list:
  """Returns the audio streams of a container for which there is a decoder."""
  return [stream for stream in container.streams.audio if stream.codec_context]


def film_track(path, container, number: int | None):
  """Returns the chosen film track of a container, or None where it has none.

  Raises InputError where there is no track of this number, or its pictures are too large.
  """
  stream = choose(path, film_tracks(container), container.streams.best('video'), number, 'film')
  if stream is not None:
    decoder = stream.codec_context
    bounds.check_size(path, decoder)
    decoder.thread_count = bounds.thread_count(decoder)
    decoder.options = {'max_pixels': OPTIONS['max_pixels']}
  return stream


def sound_track(path, container, number: int | None):
  """Returns the chosen sound track of a container, or None where it has none.

  Raises InputError where there is no track of this number, or there is sound but no decoder for it.
  """
  tracks = sound_tracks(container)
  if container.streams.audio and not tracks:
    raise InputError(f'{path} has sound that FFmpeg cannot decode; convert its sound, or remove it')
  return choose(path, tracks, container.streams.best('audio'), number, 'sound')


def choose(path, tracks, best, number, kind):
  """Returns the track of this number, from 1, or without a number the best one."""
  if number is None:
    return next(
      (track for track in tracks if best is not None and track.index == best.index),
      tracks[0] if tracks else None,
    )
  if not 1 <= number <= len(tracks):
    have = f'{len(tracks)} track{"s" * (len(tracks) != 1)}' if tracks else 'no track'
    raise InputError(f'{path} has no {kind} track {number}: it holds {have} of {kind}')
  return tracks[number - 1]


def packets_of(container, stream) -> Iterator[av.Packet]:
  """Yields the packets of a stream, and an empty one at the end.

  A stream that begins only on the way, of which the file's header does not know, is passed over:
  PyAV would fail at the end of the file, where it looks for the last packets of all streams.
  """
  with contextlib.suppress(IndexError):
    for packet in container.demux(stream):
      bounds.note_progress()
      yield packet
