// What changes with time, and what happens on clicks and keys.

const TRAIL = 2;  // seconds
const video = at('video');
const reduced = matchMedia('(prefers-reduced-motion: reduce)');
let shown = -1;  // index of the frame that the page shows

function drawPoint(i) {
  if (at('circle').hidden) return;
  const {context, width} = fitted(at('point')), {x, y} = place(width);
  const {valence, arousal} = data.targets;
  context.strokeStyle = colours.ink;
  context.lineWidth = 2.5;
  for (let j = i; !reduced.matches && j > 0 && times[i] - times[j - 1] < TRAIL; j--) {
    if (valence[j] === null || valence[j - 1] === null) continue;
    context.globalAlpha = 0.75 * (1 - (times[i] - times[j - 1]) / TRAIL);
    context.beginPath();
    context.moveTo(x(valence[j]), y(arousal[j]));
    context.lineTo(x(valence[j - 1]), y(arousal[j - 1]));
    context.stroke();
  }
  if (valence[i] === null) return;
  context.globalAlpha = 1;
  context.beginPath();
  context.arc(x(valence[i]), y(arousal[i]), 7, 0, 2 * Math.PI);
  context.fillStyle = colours.ink;
  context.fill();
  context.strokeStyle = colours.paper;
  context.stroke();
}

/** Shows the frame of index i everywhere but in the video. */
function show(i, again = false) {
  if (i === shown && !again) return;
  shown = i;
  const width = at('curves').clientWidth, height = at('curves').clientHeight, x = centre(i) * width;
  at('cursor').style.transform = `translateX(${x}px)`;
  at('frame').textContent = frames[i].toLocaleString('en');
  const minutes = span >= 120 ? ` (${clock(times[i])})` : '';
  at('time').textContent = `${times[i].toFixed(3)} s${minutes}`;
  for (const target of targets) {
    const value = data.targets[target][i], dot = at(`dot-${target}`);
    at(target).textContent = signed(value);
    dot.hidden = value === null;
    dot.style.transform = `translate(${x}px, ${level(value, height)}px)`;
  }
  at('face').textContent = found(i);
  at('sound').textContent = heard(i);
  for (const gate of data.gates) {
    const best = mostTrusted(gate, i);
    gate.outputs.forEach((output, k) => {
      output.textContent = best < 0 ? '—' : gate.scores[k][i].toFixed(2);
      output.classList.toggle('most', k === best);
    });
    if (gate.trusted) gate.trusted.textContent = best < 0 ? '—' : gate.words[best];
  }
  drawPoint(i);
  if (video.paused) tellPosition();
}

function tellPosition() {
  slider.setAttribute('aria-valuenow', times[shown]);
  slider.setAttribute('aria-valuetext', describe(shown));
}

let waiting = 0;
function follow() {
  show(frameAt(start + video.currentTime + 0.001));  // the frame on screen, not the nearest
  cancelAnimationFrame(waiting);
  if (!video.paused && !video.ended) waiting = requestAnimationFrame(follow);
}

function summarize() {
  at('summary').textContent = `Paused at ${describe(shown)}`;
}

function seek(i) {
  const shownFor = i < last ? Math.min(interval, times[i + 1] - times[i]) : interval;
  // A little into the frame, because at its very start a player may show the one before.
  video.currentTime = times[i] - start + shownFor / 5;
  show(i);
}

const atTime = t => frameAt(Math.min(Math.max(t, start), times[last]) + interval / 2);
const STEP = {
  ArrowLeft: shift => shift ? atTime(times[shown] - 1) : Math.max(shown - 1, 0),
  ArrowRight: shift => shift ? atTime(times[shown] + 1) : Math.min(shown + 1, last),
  Home: () => 0, End: () => last};
STEP.ArrowDown = STEP.ArrowLeft;
STEP.ArrowUp = STEP.ArrowRight;

slider.addEventListener('keydown', event => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key in STEP) seek(STEP[event.key](event.shiftKey));
  else if (event.key !== ' ') return;
  else if (video.paused) video.play().catch(() => {});
  else video.pause();
  event.preventDefault();
});

const seekTo = event => {
  const box = slider.getBoundingClientRect();
  seek(frameAt(start + (event.clientX - box.left) / box.width * span));
};
slider.addEventListener('pointerdown', event => {
  if (event.button) return;
  slider.setPointerCapture(event.pointerId);
  slider.focus({preventScroll: true});
  seekTo(event);
});
slider.addEventListener('pointermove', event => {
  if (slider.hasPointerCapture(event.pointerId)) seekTo(event);
});

for (const name of ['play', 'pause', 'timeupdate', 'seeking', 'seeked', 'ended']) {
  video.addEventListener(name, follow);
}
video.addEventListener('pause', () => { tellPosition(); summarize(); });
video.addEventListener('seeked', () => {
  if (video.paused && document.activeElement !== slider) summarize();
});
video.addEventListener('error', () => { at('unplayable').hidden = false; });

// The page is laid out once, for the targets and gates of its data.

function element(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function layOut() {
  for (const target of ['valence', 'arousal']) {
    const absent = !targets.includes(target);
    for (const part of [at(`key-${target}`), at(`dot-${target}`), at(target).parentElement]) {
      part.hidden = absent;
    }
    at(`dot-${target}`).style.background = `var(--${target})`;
  }
  at('circle').hidden = targets.length < 2;
  document.querySelector('main').classList.toggle('single', targets.length < 2);
  at('key-face').hidden = !faceless.length;
  at('key-sound').hidden = !silent.length;
  at('trust').hidden = !rows.length;
  rows.forEach((row, r) => {
    const starts = row.word === row.gate.words[0], strip = element('div', 'gate');
    const parts = [element('span', 'column', row.label), strip, element('span', 'score')];
    row.canvas = strip.appendChild(element('canvas', ''));
    (row.gate.outputs ||= []).push(parts[2]);
    for (const part of parts) {
      part.style.setProperty('--row', r + 3);
      part.classList.toggle('first', starts && r > 0);
      slider.before(part);
    }
  });
  for (const gate of data.gates.filter(gate => gate.weighsPrediction)) {
    const box = element('div', '');
    gate.trusted = element('dd', 'trusted');
    box.append(element('dt', '', `${gate.name}: most trusted`), gate.trusted);
    at('readout').querySelector('dl').append(box);
  }
  const cells = at('readout').querySelectorAll('dl > div:not([hidden])').length;
  at('readout').style.setProperty('--cells', cells > 8 ? Math.ceil(cells / 2) : cells);
  slider.setAttribute('aria-valuemin', times[0]);
  slider.setAttribute('aria-valuemax', times[last]);
  shown = 0;
  new ResizeObserver(drawAll).observe(at('curves'));  // also called for the first size
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
  reduced.addEventListener('change', drawAll);
}
layOut();

addEventListener('DOMContentLoaded', () => {  // the video's blocks follow this script
  const blocks = [...document.querySelectorAll('script.media')].map(block => {
    const text = atob(block.textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    block.remove();
    return bytes;
  });
  video.src = URL.createObjectURL(new Blob(blocks, {type: 'video/mp4'}));
});
