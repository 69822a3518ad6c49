"""Tests the page of a video, as a file and in a browser."""

import base64
import json
import re
import tracemalloc

import numpy as np
import pytest
from official_set import write_video
from pages import FAINT, HOSTILE, assert_named, assert_policy_holds, in_browser, softmax

from avjax.inference.prediction import VideoPrediction
from avjax.reports import clip_page, legend, templates
from avjax.targets import TARGETS

N, RATE, START = 60, 25, 0.04  # frames, frames a second, and the time of the first frame in s


def make_prediction(kind='grjca', targets=('valence', 'arousal')):
  """Makes a prediction of a system with gates of one kind.

  Frames 21 to 25 have neither face nor sound, frames 26 to 30 no face.
  """
  rng = np.random.default_rng(0)
  levels = {f'{modality}_{t}': 2 for modality in ('audio', 'visual') for t in (1, 2, 3)}
  columns = {
    'grjca': {'audio': 4, 'visual': 4},
    'none': {},
    'hgrjca': {**levels, 'audio_final': 3, 'visual_final': 3},
  }[kind]
  gates = {name: softmax(rng.normal(size=(N, k), scale=3)) for name, k in columns.items()}
  values = np.clip(np.cumsum(rng.normal(size=(N, 2), scale=0.1), axis=0), -1, 1)
  face_found, audio_present = np.ones(N, bool), np.ones(N, bool)
  face_found[20:30] = audio_present[20:25] = False
  for series in (values, *gates.values()):
    series[20:25] = np.nan
  return VideoPrediction(
    frames=np.arange(N) + 1,
    times=START + np.arange(N) / RATE,
    predictions={name: values[:, TARGETS[name].column] for name in TARGETS if name in targets},
    face_found=face_found,
    audio_present=audio_present,
    boxes=np.full((N, 4), np.nan),
    gates=gates,
    notes=['a run', 'another note'],
    speed={},
  )


def stored(path):
  """Returns the data in a page, and the bytes of its video."""
  text = path.read_text()
  data = re.search('<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
  blocks = re.findall('<script type="text/plain" class="media">(.*?)</script>', text, re.DOTALL)
  return json.loads(data), b''.join(base64.b64decode(block) for block in blocks)


@pytest.fixture(scope='module')
def film(tmp_path_factory):
  path = tmp_path_factory.mktemp('film') / 'film.mp4'
  write_video(path, N, 0.1 * np.sin(np.arange(N * 44_100 // RATE) / 20), rate=RATE)
  return path


@pytest.fixture
def opened(chromium, film, tmp_path):
  """Returns opened(kind, ...), which writes a page, opens it and returns browser and prediction."""

  def write_and_open(
    kind='grjca',
    targets=('valence', 'arousal'),
    *,
    title='film.mp4',
    notes=('a run', 'another note'),
    video=film,
    **emulated,
  ):
    given = make_prediction(kind, targets)
    given.notes = list(notes)
    clip_page.write(tmp_path / 'page.html', title, video, given)
    chromium.emulate(**{'width': 1400, **emulated})
    chromium.open(tmp_path / 'page.html')
    return chromium, given

  return write_and_open


def text(chromium, name):
  return chromium.evaluate(f'document.getElementById("{name}").textContent')


def video_seek(chromium, seconds):
  chromium.evaluate(f'video.currentTime = {seconds}')
  chromium.wait('!video.seeking && video.readyState >= 2')


def signed(value):
  return '—' if np.isnan(value) else f'{value:+.3f}'.replace('-', '\N{MINUS SIGN}')


def test_page_holds_the_data_and_the_video(film, tmp_path, monkeypatch):
  monkeypatch.setattr(clip_page, 'VIDEO_BLOCK', 300)
  given = make_prediction()
  clip_page.write(tmp_path / 'page.html', HOSTILE, film, given)
  data, video = stored(tmp_path / 'page.html')
  assert video == film.read_bytes()
  assert data['frames'] == list(range(1, N + 1))
  assert data['times'] == [round(t, 4) for t in given.times.tolist()]
  assert data['targets']['arousal'][:20] == [round(x, 6) for x in given.arousal[:20].tolist()]
  assert data['targets']['valence'][20:25] == [None] * 5
  assert data['gates'][0]['scores'][3][20:25] == [None] * 5
  assert data['face'] == given.face_found.astype(int).tolist()
  assert data['sound'] == given.audio_present.astype(int).tolist()
  assert [gate['name'] for gate in data['gates']] == ['face', 'voice']
  scores = np.array(data['gates'][0]['scores'], float).T
  np.testing.assert_allclose(scores, given.gates['visual'], atol=5e-5)


def test_no_string_ends_a_script_element():
  found = ''.join(templates.escaped_json([HOSTILE, '\u2028']))
  assert not set('<>&\u2028') & set(found) and json.loads(found) == [HOSTILE, '\u2028']


def test_file_names_that_utf_8_cannot_hold(film, tmp_path):
  name = b'caf\xe9.mp4'.decode('utf-8', 'surrogateescape')
  clip_page.write(tmp_path / 'page.html', name, film, make_prediction())
  assert '>caf?.mp4</h1>' in (tmp_path / 'page.html').read_text()


def test_memory_does_not_grow_with_the_video(tmp_path):
  with open(tmp_path / 'long.mp4', 'wb') as file:
    file.truncate(60 << 20)
  tracemalloc.start()
  clip_page.write(tmp_path / 'page.html', 'long', tmp_path / 'long.mp4', make_prediction())
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (tmp_path / 'page.html').stat().st_size > 80 << 20 and peak < 20 << 20


@pytest.mark.parametrize(
  'name, columns, expected',
  [
    ('visual', 4, ('face', ['unattended', 'recursion 1', 'recursion 2', 'recursion 3'])),
    ('audio', 2, ('voice', ['unattended', 'attended'])),
    ('audio_1', 2, ('voice gate 1', ['unattended', 'recursion 1'])),
    ('visual_3', 2, ('face gate 3', ['recursion 2', 'recursion 3'])),
    (
      'visual_final',
      3,
      ('face last gate', ['gated recursion 1', 'gated recursion 2', 'gated recursion 3']),
    ),
    ('arousal/audio', 3, ('arousal, voice', ['unattended', 'recursion 1', 'recursion 2'])),
    ('modality', 2, ('face and voice', ['face', 'voice'])),
    (
      'valence/expert',
      2,
      ('valence, experts', ['face attends to voice', 'voice attends to face']),
    ),
  ],
)
def test_gates_in_words(name, columns, expected):
  assert legend.describe_gate(name, columns) == expected


def test_gates_are_sorted_as_people_read_them():
  names = ['audio_1', 'audio_final', 'visual_final', 'visual_1', 'visual_2']
  expected = ['visual_1', 'visual_2', 'visual_final', 'audio_1', 'audio_final']
  assert legend.sort_gates(names) == expected
  assert legend.sort_gates(['b/audio', 'b/visual', 'a/audio']) == ['b/visual', 'b/audio', 'a/audio']
  assert [legend.weighs_prediction(name) for name in ('audio', 'b/visual_final', 'audio_1')] == [
    True,
    True,
    False,
  ]


def test_pages_have_the_colours_of_the_figures():
  style = legend.target_style()
  assert all(f'--{name}: {target.colour};' in style for name, target in TARGETS.items())


@in_browser
def test_it_plays_and_the_cursor_follows(opened):
  chromium, _ = opened()
  codecs = 'video/mp4; codecs="avc1.42E01E, mp4a.40.2"'
  if not chromium.evaluate(f"video.canPlayType('{codecs}')"):
    pytest.skip('this browser has no H.264')
  cursor_left = 'document.getElementById("cursor").getBoundingClientRect().left'
  before = chromium.evaluate(cursor_left)
  chromium.evaluate("""window.changes = 0; window.updates = 0;
    new MutationObserver(() => window.changes++)
      .observe(document.getElementById("frame"), {childList: true});
    video.addEventListener("timeupdate", () => window.updates++)""")
  chromium.evaluate('video.muted = true; video.play()')
  chromium.wait(
    'video.currentTime > 1.2 && Number(document.getElementById("frame").textContent) > 8'
  )
  chromium.evaluate('video.pause()')
  # The page follows each repaint of the screen, not only the player's few timeupdate events.
  assert chromium.evaluate('window.changes > window.updates + 2')
  chromium.wait('document.getElementById("summary").textContent.startsWith("Paused at")')
  at, left = chromium.evaluate(f'[video.currentTime, {cursor_left}]')
  frame = int(text(chromium, 'frame'))
  assert frame == min(int((at + 0.001) * RATE), N - 1) + 1
  width = chromium.evaluate('slider.clientWidth')
  assert left - before == pytest.approx((frame - 1) / N * width, abs=1)
  seconds = float(chromium.evaluate('slider.ariaValueNow'))
  assert seconds == pytest.approx(START + (frame - 1) / RATE)
  assert not chromium.errors
  assert all(url.startswith(('file:', 'blob:', 'data:')) for url in chromium.requests)


@in_browser
def test_numbers_on_screen_are_those_given(opened):
  chromium, given = opened()
  for i in (3, 22, 47):
    video_seek(chromium, given.times[i] - START)
    names = ('frame', 'time', 'valence', 'arousal', 'face', 'sound')
    assert [text(chromium, name) for name in names] == [
      str(i + 1),
      f'{given.times[i]:.3f} s',
      *(signed(values[i]) for values in given.predictions.values()),
      'no face' if i == 22 else 'face found',
      'no sound' if i == 22 else 'sound',
    ]
    gates = [given.gates[name][i] for name in ('visual', 'audio')]  # the face comes first
    scores = np.concatenate(gates)
    shown = chromium.evaluate('[...document.querySelectorAll(".score")].map(e => e.textContent)')
    assert shown == ['—' if np.isnan(x) else f'{round(x, 4):.2f}' for x in scores]
    trusted = chromium.evaluate(
      '[...document.querySelectorAll(".trusted")].map(e => e.textContent)'
    )
    words = legend.describe_gate('visual', 4)[1]
    assert trusted == ['—' if np.isnan(gate[0]) else words[np.argmax(gate)] for gate in gates]
  assert not chromium.errors


@in_browser
def test_keys_and_pointer_move_it(opened):
  chromium, given = opened(width=1000)
  chromium.evaluate('slider.focus()')
  for key, shift, frame in (
    ('ArrowRight', False, 2),
    ('ArrowRight', False, 3),
    ('ArrowLeft', False, 2),
    ('ArrowRight', True, 27),
    ('End', False, N),
    ('ArrowRight', False, N),
    ('ArrowLeft', True, N - RATE),
    ('Home', False, 1),
    ('ArrowLeft', True, 1),
  ):
    chromium.key(key, shift)
    assert text(chromium, 'frame') == str(frame)
    assert chromium.evaluate('video.currentTime') * RATE == pytest.approx(frame - 1, abs=0.5)
    spoken = chromium.evaluate('slider.ariaValueText')
    assert spoken.startswith(f'{given.times[frame - 1]:.3f} seconds, frame {frame}: valence')
  chromium.evaluate('video.muted = true')
  chromium.key(' ')
  chromium.wait('!video.paused')
  chromium.key(' ')
  chromium.wait('video.paused')
  for touch in (False, True):
    chromium.emulate(600, phone=touch)
    chromium.evaluate('slider.scrollIntoView({block: "center"})')
    left, top, width = chromium.evaluate(
      '(box => [box.left, box.top + 40, box.width])(slider.getBoundingClientRect())'
    )
    chromium.drag([(left + width * (k + 0.5) / N, top) for k in (10, 25, 39)], touch)
    chromium.wait('document.getElementById("frame").textContent === "40"')
  assert not chromium.errors


@in_browser
def test_gates_of_every_system_are_in_words(opened):
  chromium, _ = opened('hgrjca')
  labels = chromium.evaluate('[...document.querySelectorAll(".column")].map(e => e.textContent)')
  assert labels[:4] == [
    'face gate 1: unattended',
    'face gate 1: recursion 1',
    'face gate 2: recursion 1',
    'face gate 2: recursion 2',
  ]
  assert labels[-1] == 'voice last gate: gated recursion 3' and len(labels) == 18
  assert chromium.evaluate('document.querySelectorAll(".trusted").length') == 2
  chromium, _ = opened('none', ['arousal'])
  assert (
    chromium.evaluate(
      '["circle", "trust", "key-valence"].map(id => document.getElementById(id).checkVisibility())'
    )
    == [False] * 3
  )
  assert not chromium.errors


@in_browser
def test_hostile_title_is_only_text(opened):
  chromium, _ = opened(title=HOSTILE, notes=[HOSTILE])
  assert chromium.evaluate('window.hacked') is None and not chromium.errors
  assert chromium.evaluate('document.title') == text(chromium, 'title') == HOSTILE
  assert chromium.evaluate('document.querySelector(".notes").innerText.trim()') == HOSTILE
  assert chromium.evaluate('document.images.length') == 0


@in_browser
def test_nothing_that_is_put_into_the_page_takes_effect(opened, tmp_path):
  chromium, _ = opened()
  assert_policy_holds(chromium, tmp_path / 'page.html')
  assert text(chromium, 'frame') == '1'


def test_a_script_that_would_end_its_element_is_refused():
  for hostile in ('</script>', '</ScRiPt >', '<!--'):
    with pytest.raises(ValueError, match='end its element'):
      templates._own(f'const x = "{hostile}"')


@in_browser
def test_video_that_cannot_be_played(opened, tmp_path):
  (tmp_path / 'broken.mp4').write_bytes(b'no video' * 99)
  chromium, _ = opened(video=tmp_path / 'broken.mp4')
  chromium.wait('document.getElementById("unplayable").checkVisibility()')
  chromium.evaluate('slider.focus()')
  chromium.key('ArrowRight')
  assert text(chromium, 'frame') == '2'
  chromium.errors.clear()  # a browser may remark on such a video


@in_browser
@pytest.mark.parametrize('width', [360, 1400])
def test_looks(opened, width):
  chromium, _ = opened(width=width)
  grounds = []
  for dark in (False, True):
    chromium.emulate(width, dark=dark)
    assert chromium.evaluate('document.documentElement.scrollWidth') == width
    assert not chromium.evaluate(FAINT)
    grounds.append(chromium.evaluate('getComputedStyle(document.body).backgroundColor'))
  assert grounds[0] == 'rgb(255, 255, 255)' != grounds[1]
  assert_named(chromium)


@in_browser
def test_no_trail_where_motion_is_unwelcome(opened):
  inked = """(canvas => canvas.getContext("2d")
    .getImageData(0, 0, canvas.width, canvas.height).data
    .reduce((count, value, i) => count + (i % 4 === 3 && value > 0), 0)
  )(document.getElementById("point"))"""
  chromium, given = opened()
  video_seek(chromium, given.times[18] - START)
  with_trail = chromium.evaluate(inked)
  chromium.emulate(1400, still=True)
  assert 100 < chromium.evaluate(inked) < with_trail
  # Only the browser's remark on how this test reads the canvas.
  assert all('getImageData' in error for error in chromium.errors)
  chromium.errors.clear()
