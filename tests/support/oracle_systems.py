"""Computes in float64 NumPy the systems that are not the paper's own.

They take one clip at a time; rows are frames.
"""

import math

import numpy as np
from oracle import dense, relu, softmax


def layer_norm(x, w=None):
  y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  return y * w['scale'] + w['bias'] if w else y


def attention(w, x, y, heads):
  """Multi-head attention of queries x (L,D) over y (M,D'), head by head."""
  out = w['out']['bias'].copy() + np.zeros((len(x), 1))
  for h in range(heads):
    q, k, v = (
      z @ w[name]['kernel'][:, h] + w[name]['bias'][h]
      for name, z in (('query', x), ('key', y), ('value', y))
    )
    out = out + softmax(q @ k.T / np.sqrt(q.shape[1])) @ v @ w['out']['kernel'][h]
  return out


def encoder_layer(w, x, heads, over=None):
  x = layer_norm(x + attention(w['attention'], x, x if over is None else over, heads), w['norm1'])
  return layer_norm(x + dense(relu(dense(x, w['dense1'])), w['dense2']), w['norm2'])


def transformer(
  w, x_v, x_a, layers, heads, inputs=('visual', 'audio'), slope=None, positions=False
):
  x = np.hstack(
    [
      dense(x, w[f'each_{name}']) if f'each_{name}' in w else x
      for name, x in (('visual', x_v), ('audio', x_a))
      if name in inputs
    ]
  )
  for i in range(9):
    if f'stem{i}' in w:
      x = np.where(x > 0, x, slope * x) if i and slope is not None else x
      x = dense(x, w[f'stem{i}'])
  if positions:
    for t in range(x.shape[0]):
      for c in range(x.shape[1]):
        x[t, c] += (np.cos if c % 2 else np.sin)(t / 10000 ** ((c - c % 2) / x.shape[1]))
  for i in range(layers):
    x = encoder_layer(w[f'layer{i}'], x, heads)
  return x


def cross_modal(w, x_v, x_a, blocks, heads):
  v, a = dense(x_v, w['visual']), dense(x_a, w['audio'])
  x = v
  for i in range(blocks):
    x = encoder_layer(w[f'block{i}'], x, heads, a)
  return np.hstack([v, x])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def mamba_layer(w, x, states, rank):
  """Computes a Mamba layer, frame by frame and state by state."""
  width = x.shape[1]
  both = x @ w['in']['kernel']
  u, z = both[:, :width], both[:, width:]
  taps = w['conv']['kernel'][:, 0]  # (4,D)
  padded = np.vstack([np.zeros((len(taps) - 1, width)), u])
  u = (
    np.array([(padded[t : t + len(taps)] * taps).sum(0) for t in range(len(u))]) + w['conv']['bias']
  )
  u = u * sigmoid(u)
  a, h, rows = -np.exp(w['a_log']), np.zeros((width, states)), []
  for t in range(len(u)):
    selected = u[t] @ w['select']['kernel']
    step = np.log1p(np.exp(dense(selected[:rank], w['step'])))
    write, read = selected[rank : rank + states], selected[rank + states :]
    h = np.exp(step[:, None] * a) * h + (step * u[t])[:, None] * write
    rows.append(h @ read + w['skip'] * u[t])
  return np.array(rows) * (z * sigmoid(z)) @ w['out']['kernel']


def mamba(w, x_v, x_a, layers, states, rank, output=False):
  del x_a
  x = layer_norm(x_v)
  for i in range(layers):
    x = layer_norm(x + mamba_layer(w[f'layer{i}'], x, states, rank), w[f'norm{i}'])
  return dense(x, w['output']) if output else x


def lstm_pass(w, x):
  """Runs an LSTM over the rows in one direction.

  The gates i, f, g, o each have their own dense layers of the input (no bias) and of the state.
  """
  width = len(w['hi']['bias'])
  h, c, rows = np.zeros(width), np.zeros(width), []
  for row in x:
    gate = {name: row @ w[f'i{name}']['kernel'] + dense(h, w[f'h{name}']) for name in 'ifgo'}
    c = sigmoid(gate['f']) * c + sigmoid(gate['i']) * np.tanh(gate['g'])
    h = sigmoid(gate['o']) * np.tanh(c)
    rows.append(h)
  return np.array(rows)


def lstm(w, x_v, x_a, layers, bidirectional):
  del x_a
  x = x_v
  for i in range(layers):
    forward = lstm_pass(w[f'forward{i}'], x)
    if bidirectional:
      forward = np.hstack([forward, lstm_pass(w[f'backward{i}'], x[::-1])[::-1]])
    x = forward
  return x


def leader_follower(w, x_v, x_a, from_key=False):
  rows = []
  for v, a in zip(x_v, x_a, strict=True):
    key = dense(a, w['audio_key'])
    k = np.array([dense(v, w['visual_key']), key])
    source = key if from_key else a  # the code of 2021 overwrites the features with the key
    q = np.array([dense(v, w['visual_query']), dense(source, w['audio_query'])])
    values = np.array([dense(v, w['visual_value']), dense(source, w['audio_value'])])
    y = softmax(k @ q.T / np.sqrt(k.shape[1])) @ values + values
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * w['norm']['scale'] + w['norm']['bias']
    rows.append(np.concatenate([v, y.ravel()]))
  return np.array(rows)


def can(w, x_v, x_a):
  x = np.hstack([dense(x_v, w['visual']), dense(x_a, w['audio'])])
  return x * softmax(dense(x, w['weights']))


def ca_2021(w, x_v, x_a, temperature=1.0, residual=True):
  """Correlates every audio frame i with every visual frame j, and averages frame by frame."""
  a = np.array([row / np.linalg.norm(row) for row in x_a])
  v = np.array([row / np.linalg.norm(row) for row in x_v])
  z = np.array([[i @ w['correlation'] @ j for j in v] for i in a]) / temperature
  # Column k of A_a sums to 1 over audio frames, and column k of A_v, of Z^T, over visual frames.
  hat_a, hat_v = (
    np.array([softmax(scores[:, k][None])[0] @ x for k in range(len(x))])
    for x, scores in ((a, z), (v, z.T))
  )
  if residual:
    hat_a, hat_v = np.tanh(a + hat_a), np.tanh(v + hat_v)
  return np.hstack([hat_a, hat_v])


def jca_2022(w, x_v, x_a):
  a, v = dense(x_a, w['audio_in']), dense(x_v, w['visual_in'])
  joint, n = np.hstack([a, v]), len(x_v)
  attended = []
  for x, p in ((a, w['audio']), (v, w['visual'])):
    c = np.tanh(x.T @ p['affine'][:n, :n] @ joint / np.sqrt(joint.shape[1]))
    h = relu(c @ p['w_c'] + x.T @ p['w_x'][:n])
    attended.append((h @ p['w_h'][:, :n]).T + x)
  return np.hstack(attended)


def gelu(x):
  return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def raav(w, x_v, x_a, heads, layers, priors, gate_audio=True):
  """Returns the fused features and the gate (L,2), None where only visual is weighed."""
  scores, x = None, dense(x_v, w['visual'])
  if gate_audio:
    scores, rows = [], []
    for v, a in zip(x, dense(x_a, w['audio']), strict=True):
      trust = [
        share * np.exp(dense(gelu(dense(h, w[f'gate_{name}_hidden'])), w[f'gate_{name}'])[0])
        for name, h, share in (('visual', v, priors[0]), ('audio', a, priors[1]))
      ]
      scores.append(np.array(trust) / sum(trust))
      rows.append(scores[-1][0] * v + scores[-1][1] * a)
    x, scores = np.array(rows), np.array(scores)
  b = w['latents'] + attention(w['gather'], w['latents'], dense(x_a, w['context']), heads)
  b = layer_norm(b, w['latents_norm'])
  x = x + attention(w['find'], layer_norm(x, w['frames_norm']), b, heads)
  x = layer_norm(x, w['context_norm'])
  for i in range(layers):
    layer = w[f'layer{i}']
    y = layer_norm(x, layer['norm1'])
    x = x + attention(layer['attention'], y, y, heads)
    x = x + dense(gelu(dense(layer_norm(x, layer['norm2']), layer['dense1'])), layer['dense2'])
  return x, scores


def joint_context(w, x_v, x_a, reach, dilation, gated=False):
  """Returns the fused features and the shares (L,2) of visual and audio, None without a gate."""

  def convolve(layer, x):
    rows = []
    for t in range(len(x)):
      seen = layer['bias'].copy()
      for i, k in enumerate(range(-reach, reach + 1)):
        if 0 <= t + k * dilation < len(x):
          width = x.shape[1]
          seen += x[t + k * dilation] @ layer['kernel'][i * width : (i + 1) * width]
      rows.append(relu(seen))
    return np.array(rows)

  scores = None
  if gated:
    scores = softmax(dense(convolve(w['gate_hidden'], np.hstack([x_a, x_v])), w['gate']))
    x_v, x_a = 2 * scores[:, :1] * x_v, 2 * scores[:, 1:] * x_a
  pair = np.hstack([x_a, x_v])
  return np.hstack([pair, convolve(w['context'], pair)]), scores


def expert(w, name, x, y, heads, layers):
  """Runs the expert in which the rows of the modality `name`, x, attend to those of the other, y.

  In every layer both get their positions again.
  """
  t, c = np.arange(len(x))[:, None], np.arange(x.shape[1])[None]
  angle = t / 10000 ** ((c - c % 2) / x.shape[1])
  positions = np.where(c % 2, np.cos(angle), np.sin(angle))
  for i in range(layers):
    layer = w[f'{name}_layer{i}']
    attended = attention(layer['attention'], x + positions, y + positions, heads)
    z = layer_norm(attended + x + positions, layer['norm1'])
    z = layer_norm(dense(gelu(dense(z, layer['dense1'])), layer['dense2']) + z, layer['norm2'])
    x = x + z
  return x


def dcmmoe(w, x_v, x_a, heads, layers, audio_expert=True):
  """Returns the fused features and the gate (L,2), None where there is only one expert."""
  v, a = (
    layer_norm(dense(x, w[name]), w[f'{name}_norm'])
    for name, x in (('visual', x_v), ('audio', x_a))
  )
  first = expert(w, 'visual', v, a, heads, layers)
  if not audio_expert:
    return first, None
  second = expert(w, 'audio', a, v, heads, layers)
  scores = softmax(dense((v + a) / 2, w['gate']))
  return scores[:, :1] * first + scores[:, 1:] * second, scores
