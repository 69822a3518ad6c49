"""Writes a short video file with PyAV, byte for byte the same every time."""

import av
import numpy as np

from data_prep.mini.voice import RATE

CODECS = {'.mp4': ('libx264', 'aac'), '.avi': ('mpeg4', 'libmp3lame')}
LAME_DELAY = 1105  # samples that LAME puts before the first one
X264 = {'preset': 'ultrafast', 'crf': '28'}


def write_film(
  path, size, images, *, ticks, rate, time_base, sound=None, sound_start=0.0, stereo=False
):
  """Writes .mp4 as H.264/AAC or .avi as MPEG-4/MP3.

  Args:
    path: where to, with one of the two endings.
    size: width and height in pixels, even.
    images: iterable of (H,W,3) uint8 BGR.
    ticks: when each is shown, int, in units of time_base.
    rate: nominal frames per second, a Fraction.
    time_base: seconds per tick, a Fraction.
    sound: (n,) float32 at 16 kHz, or None for no track.
    sound_start: seconds from the container's zero to the first sample.
    stereo: resample to 44.1 kHz in two equal channels.
  """
  video_codec, sound_codec = CODECS[path.suffix]
  with av.open(str(path), 'w', container_options={'fflags': '+bitexact'}) as container:
    video = container.add_stream(
      video_codec, rate=rate, options=X264 if video_codec == 'libx264' else {}
    )
    video.codec_context.time_base = time_base
    video.thread_count = 1  # with more, the bytes depend on their number
    video.width, video.height = size
    video.pix_fmt, video.bit_rate = 'yuv420p', 400_000
    streams = [video]
    if sound is not None:
      hertz = 44_100 if stereo else RATE
      track = container.add_stream(sound_codec, rate=hertz, layout='stereo' if stereo else 'mono')
      track.bit_rate = 96_000 if stereo else 48_000
      streams.append(track)

    packets = []
    for image, tick in zip(images, ticks, strict=True):
      frame = av.VideoFrame.from_ndarray(image, format='bgr24')
      frame.pts, frame.time_base = int(tick), time_base
      packets += video.encode(frame)
    if sound is not None:
      # LAME puts a lead-in before the sound. AVI has no negative times, so FFmpeg would delay the
      # frames by it; instead, as many samples of the sound are dropped.
      skip = LAME_DELAY if path.suffix == '.avi' else 0
      packets += track.encode(
        sound_frame(sound, hertz, stereo=stereo, start=sound_start, skip=skip)
      )
    packets += [packet for stream in streams for packet in stream.encode()]
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
      container.mux(packet)


def sound_frame(sound, hertz, *, stereo, start, skip):
  """Returns the sound as one frame of the given rate.

  The first `skip` samples at that rate are left out. Mono is copied to both channels: FFmpeg
  would lower it by 3 dB.
  """

  def frame(samples, rate):
    made = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(samples), format='fltp', layout='stereo' if len(samples) == 2 else 'mono'
    )
    made.sample_rate = rate
    return made

  if hertz != RATE:
    resampler = av.AudioResampler(format='fltp', layout='mono', rate=hertz)
    parts = [*resampler.resample(frame(sound[None], RATE)), *resampler.resample(None)]
    sound = np.concatenate([part.to_ndarray()[0] for part in parts])
  made = frame(np.stack([sound[skip:]] * (2 if stereo else 1)), hertz)
  made.pts = round(start * hertz) + skip
  return made
