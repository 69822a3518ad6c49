'use strict';
const at = id => document.getElementById(id);
const data = JSON.parse(at('data').textContent);
const {frames, times, interval} = data, last = frames.length - 1;
const start = times[0], span = times[last] + interval - start;
const targets = Object.keys(data.targets);
const rows = data.gates.flatMap(gate => gate.words.map(  // a row for each column of each gate
  (word, k) => ({gate, word, label: `${gate.name}: ${word}`, scores: gate.scores[k]})));
const slider = at('slider');
let colours = {};

// Time. t is in seconds, as in the data; time 0 of the video is `start`. The axis of time is from 0
// to 1, and a frame fills [t, t + interval) of it.

/** Returns the index of the frame that is shown at time t. */
function frameAt(t) {
  let low = 0, high = last;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= t) low = middle; else high = middle - 1;
  }
  return low;
}
const share = t => (t - start) / span;
const centre = i => share(times[i] + interval / 2);

/** Returns the first frame in each of `columns` equal parts of the axis, and the last frame. */
function firstFrames(columns) {
  const first = new Int32Array(columns + 1).fill(last);
  for (let column = 0; column < columns; column++) {
    first[column] = frameAt(start + column / columns * span);
  }
  return first;
}

/** Finds the runs of frames where a mask is 0, as [from, to) on the axis. */
function gaps(mask) {
  const found = [];
  for (let i = 0; i <= last; i++) {
    if (mask[i]) continue;
    const from = i;
    while (i < last && !mask[i + 1]) i++;
    found.push([share(times[from]), i < last ? share(times[i + 1]) : 1]);
  }
  return found;
}
const faceless = gaps(data.face), silent = gaps(data.sound);

// Words and numbers.

const signed = x => x === null ? '—' : (x < 0 ? '−' : '+') + Math.abs(x).toFixed(3);
const clock = t => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, '0')}`;
const found = i => data.face[i] ? 'face found' : 'no face';
const heard = i => data.sound[i] ? 'sound' : 'no sound';
const describe = i => `${times[i].toFixed(3)} seconds, frame ${frames[i]}: ` + [
  ...targets.map(target => {
    const value = data.targets[target][i];
    return `${target} ${value === null ? 'unknown' : signed(value)}`;
  }),
  found(i), heard(i)].join(', ');

/** Returns the column of a gate with the highest score, or -1 where it has no scores. */
function mostTrusted(gate, i) {
  let best = -1;
  gate.scores.forEach((column, k) => {
    if (column[i] !== null && (best < 0 || column[i] > gate.scores[best][i])) best = k;
  });
  return best;
}

// What does not change with time is drawn only when the size or the colours change.

/** Fits a canvas to its box and the screen's pixels; returns its context and size in CSS pixels. */
function fitted(canvas) {
  const ratio = devicePixelRatio || 1;
  const {width, height} = canvas.parentElement.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  return {context, width, height};
}

const level = (value, height) => height * (0.5 - 0.46 * value);

function drawSpans(context, width, height, spans, drawMark) {
  if (!spans.length) return;
  context.save();
  context.beginPath();
  for (const [from, to] of spans) {
    context.rect(from * width, 0, Math.max((to - from) * width, 1), height);
  }
  context.clip();
  context.fillStyle = context.strokeStyle = colours.muted;
  context.globalAlpha = 0.1;
  context.fillRect(0, 0, width, height);
  context.globalAlpha = 0.55;
  context.beginPath();
  drawMark();
  context.restore();
}

function drawCurves() {
  const {context, width, height} = fitted(at('curves').querySelector('canvas'));
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, width, height);
  drawSpans(context, width, height, faceless, () => {
    for (let x = -height; x < width; x += 7) {
      context.moveTo(x, height);
      context.lineTo(x + height, 0);
    }
    context.stroke();
  });
  drawSpans(context, width, height, silent, () => {
    for (let x = 3; x < width; x += 8) {
      for (let y = 3; y < height; y += 8) context.rect(x, y, 1.8, 1.8);
    }
    context.fill();
  });
  for (const value of [-1, -0.5, 0, 0.5, 1]) {
    context.fillStyle = value ? colours.line : colours.muted;
    context.fillRect(0, Math.round(level(value, height)), width, 1);
  }
  const columns = Math.round(width), first = firstFrames(columns);
  for (const target of targets) {
    const values = data.targets[target];
    context.beginPath();
    let begun = false;
    const point = (x, value) => {
      if (value === null) { begun = false; return; }
      context[begun ? 'lineTo' : 'moveTo'](x, level(value, height));
      if (!begun) context.lineTo(x, level(value, height));  // a frame between gaps is a dot
      begun = true;
    };
    if (frames.length <= columns) {
      for (let i = 0; i <= last; i++) point(centre(i) * width, values[i]);
    } else {
      // Where a pixel has many frames, a line through the lowest and the highest of them.
      for (let column = 0; column < columns; column++) {
        let low = null, high = null;
        for (let i = first[column]; i <= first[column + 1]; i++) {
          if (values[i] === null) continue;
          if (low === null || values[i] < low) low = values[i];
          if (high === null || values[i] > high) high = values[i];
        }
        if (target === 'arousal' && column % 12 > 7) low = high = null;  // dashes
        point(column + 0.25, column % 2 ? low : high);
        if (low !== null) point(column + 0.75, column % 2 ? high : low);
      }
    }
    context.lineWidth = 2;
    context.lineJoin = context.lineCap = 'round';
    context.setLineDash(target === 'arousal' && frames.length <= columns ? [7, 5] : []);
    context.strokeStyle = colours[target];
    context.stroke();
  }
}

const STEPS = [  // seconds
  0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

function drawTicks() {
  const width = at('ticks').clientWidth;
  const step = STEPS.find(step => step / span * width >= 64) || 7200;
  const labels = [];
  for (let t = Math.ceil(start / step) * step; share(t) * width < width - 16; t += step) {
    const label = document.createElement('span');
    label.textContent = span >= 120 ? clock(t) : `${+t.toFixed(1)} s`;
    label.style.left = `${100 * share(t)}%`;
    labels.push(label);
  }
  at('ticks').replaceChildren(...labels);
}

/** Returns the colour of a score between 0 and 1, as [r, g, b]. */
function heat(score) {
  const position = Math.min(Math.max(score, 0), 1) * (colours.heat.length - 1);
  const low = Math.min(Math.floor(position), colours.heat.length - 2);
  const [from, to] = [colours.heat[low], colours.heat[low + 1]];
  return from.map((value, c) => value + (position - low) * (to[c] - value));
}

function drawGates() {
  if (!rows.length) return;
  const columns = Math.round(at('curves').clientWidth * (devicePixelRatio || 1));
  const first = firstFrames(columns);
  for (const row of rows) {
    row.canvas.width = columns;
    row.canvas.height = 1;
    const context = row.canvas.getContext('2d');
    const pixels = context.createImageData(columns, 1);
    for (let column = 0; column < columns; column++) {
      let sum = 0, count = 0;
      const end = Math.max(first[column], first[column + 1] - 1);
      for (let i = first[column]; i <= end; i++) {
        if (row.scores[i] !== null) { sum += row.scores[i]; count++; }
      }
      if (count) pixels.data.set([...heat(sum / count), 255], 4 * column);
    }
    context.putImageData(pixels, 0, 0);
  }
}

/** Returns the radius of the circle in a square of a size, and where values lie in it. */
function place(size) {
  const radius = size / 2 - 26;
  const middle = size / 2;
  return {radius, x: valence => middle + radius * valence, y: arousal => middle - radius * arousal};
}

function drawGround() {
  if (at('circle').hidden) return;
  const {context, width} = fitted(at('ground')), {radius, x, y} = place(width);
  context.beginPath();
  context.arc(x(0), y(0), radius, 0, 2 * Math.PI);
  context.fillStyle = colours.paper;
  context.fill();
  context.strokeStyle = colours.muted;
  context.lineWidth = 1.2;
  context.stroke();
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  context.beginPath();
  context.arc(x(0), y(0), radius / 2, 0, 2 * Math.PI);
  context.moveTo(x(-1), y(0)); context.lineTo(x(1), y(0));
  context.moveTo(x(0), y(-1)); context.lineTo(x(0), y(1));
  context.stroke();
  context.fillStyle = colours.muted;
  context.globalAlpha = 0.3;  // behind the texts, at most some 3000 frames of the video
  for (let i = 0; i <= last; i += Math.ceil(frames.length / 3000)) {
    const {valence, arousal} = data.targets;
    if (valence[i] !== null) context.fillRect(x(valence[i]) - 1, y(arousal[i]) - 1, 2, 2);
  }
  context.globalAlpha = 1;
  context.fillStyle = colours.muted;
  context.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.strokeStyle = colours.paper;
  context.lineWidth = 4;
  for (const [word, v, a] of [
    ['tense', -0.52, 0.62], ['happy', 0.52, 0.62], ['sad', -0.52, -0.62], ['calm', 0.52, -0.62],
  ]) {
    context.strokeText(word, x(v), y(a));
    context.fillText(word, x(v), y(a));
  }
  context.fillStyle = colours.ink;
  context.fillText('arousal +', x(0), 12);
  context.fillText('−', x(0), width - 12);
  context.fillText('−', 12, y(0));
  context.save();
  context.translate(width - 12, y(0));
  context.rotate(Math.PI / 2);
  context.fillText('valence +', 0, 0);
  context.restore();
}

function drawAll() {
  const style = getComputedStyle(document.documentElement);
  const variable = name => style.getPropertyValue(`--${name}`).trim();
  for (const name of ['paper', 'ink', 'muted', 'line', 'valence', 'arousal']) {
    colours[name] = variable(name);
  }
  colours.heat = [0, 1, 2, 3].map(
    k => variable(`heat${k}`).match(/[0-9a-f]{2}/gi).map(hex => parseInt(hex, 16)));
  slider.style.left = `${at('curves').offsetLeft}px`;
  slider.style.width = `${at('curves').offsetWidth}px`;
  drawCurves();
  drawTicks();
  drawGates();
  drawGround();
  show(shown, true);
}
