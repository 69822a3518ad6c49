"""Computes the models a second time, in float64 NumPy and as plainly as possible.

They take one clip at a time, in evaluation mode.

Fusion is written from the paper alone and in its layout: X is D x L, a column is a frame, and
[X_a; X_v] are stacked rows. The TCN and the towers are written from PyTorch's definitions, rows
being frames. `w` is the Flax parameter tree of the module and `s` its batch statistics, both as
dicts of float64 arrays. A clip of L' frames uses leading blocks of the L x L weights. Where the
paper leaves a choice, docs/deviations.md says which one is made; comments give its row there.
"""

import jax
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def relu(x):
  return np.maximum(x, 0)


def softmax(x):
  e = np.exp(x - x.max(axis=1, keepdims=True))
  return e / e.sum(axis=1, keepdims=True)


# Section 3.2: joint cross-attention.


def jca(w, x_a, x_v):
  """Equations 1 to 6 with the weights of one recursion: X_a, X_v -> X_att,a, X_att,v."""
  n = x_a.shape[1]
  (w_ja, w_ca, w_ha), (w_jv, w_cv, w_hv) = (
    [w[m][k] for k in ('w_j', 'w_c', 'w_h')] for m in ('audio', 'visual')
  )
  w_ca, w_ha, w_cv, w_hv = (matrix[:n, :n] for matrix in (w_ca, w_ha, w_cv, w_hv))
  j = (
    w['joint']['kernel'].T @ np.vstack([x_a, x_v]) + w['joint']['bias'][:, None]
  )  # section 3.1: J = FC([X_a; X_v])
  d = len(x_a) + len(x_v)
  c_a = np.tanh(x_a.T @ w_ja @ j / np.sqrt(d))  # eq. 1
  c_v = np.tanh(x_v.T @ w_jv @ j / np.sqrt(d))  # eq. 2
  h_a = relu(x_a @ w_ca @ c_a)  # eq. 3
  h_v = relu(x_v @ w_cv @ c_v)  # eq. 4
  x_att_a = h_a @ w_ha + x_a  # eq. 5
  x_att_v = h_v @ w_hv + x_v  # eq. 6
  return x_att_a, x_att_v


def recursions(w, x_a, x_v, m):
  """Equations 7 and 8: [X_a^(0), ..., X_a^(M)] and [X_v^(0), ..., X_v^(M)]."""
  series_a, series_v = [x_a], [x_v]
  for t in range(1, m + 1):
    x_a, x_v = jca(w[f'recursion_{t}'], x_a, x_v)  # eq. 7, 8: untied weights, fed with X^(t-1)
    series_a.append(x_a)
    series_v.append(x_v)
  return series_a, series_v


def rjca(w, x_a, x_v, m):
  """The last recursion, [X_att,a; X_att,v]. Returns it and the gates, of which there are none."""
  series_a, series_v = recursions(w, x_a, x_v, m)
  return np.vstack([series_a[-1], series_v[-1]]), {}


# Section 3.3: gates. G is L x K, and its column t, replicated over the rows of X, multiplies X^(t).


def gate(w, x, temperature):
  w_go = x.T @ w['kernel'] + w['bias']  # eq. 9, 10, 14, 15, with the bias of row 5
  return softmax(w_go / temperature)  # eq. 11, 16


def dca(w, x_a, x_v, m, temperature=0.1, recursions=recursions):
  """Equations 9 to 13 with two columns: unattended and last attended."""
  series_a, series_v = recursions(w, x_a, x_v, m)
  g_a = gate(w['gate_audio'], series_a[m], temperature)
  g_v = gate(w['gate_visual'], series_v[m], temperature)
  x_ga = relu(series_a[0] * g_a[:, 0] + series_a[m] * g_a[:, 1])
  x_gv = relu(series_v[0] * g_v[:, 0] + series_v[m] * g_v[:, 1])
  return np.vstack([x_ga, x_gv]), {'audio': g_a, 'visual': g_v}


def grjca(w, x_a, x_v, m, temperature=0.1, recursions=recursions):
  """Equations 9 to 13: [X_att,ga; X_att,gv] and the gates."""
  series_a, series_v = recursions(w, x_a, x_v, m)
  g_v = gate(w['gate_visual'], series_v[m], temperature)  # eq. 9, 11
  g_a = gate(w['gate_audio'], series_a[m], temperature)  # eq. 10, 11
  x_ga = relu(sum(series_a[t] * g_a[:, t] for t in range(m + 1)))  # eq. 12
  x_gv = relu(sum(series_v[t] * g_v[:, t] for t in range(m + 1)))  # eq. 13
  return np.vstack([x_ga, x_gv]), {'audio': g_a, 'visual': g_v}


# Section 3.4.


def hgrjca(w, x_a, x_v, m, temperature=0.1, recursions=recursions):
  """Equations 14 to 20: [X_att,ga^(f); X_att,gv^(f)] and the gates."""
  series_a, series_v = recursions(w, x_a, x_v, m)
  gates, gated_a, gated_v = {}, {}, {}
  for t in range(1, m + 1):
    g_v = gate(w[f'gate_visual_{t}'], series_v[t], temperature)  # eq. 14, 16
    g_a = gate(w[f'gate_audio_{t}'], series_a[t], temperature)  # eq. 15, 16
    gated_v[t] = relu(series_v[t - 1] * g_v[:, 0] + series_v[t] * g_v[:, 1])  # eq. 17
    gated_a[t] = relu(series_a[t - 1] * g_a[:, 0] + series_a[t] * g_a[:, 1])  # eq. 18
    gates |= {f'visual_{t}': g_v, f'audio_{t}': g_a}
  g_af = gate(
    w['gate_audio_final'], gated_a[m], temperature
  )  # row 8: reads the last gated features
  g_vf = gate(w['gate_visual_final'], gated_v[m], temperature)
  x_gaf = relu(
    sum(gated_a[t] * g_af[:, t - 1] for t in range(1, m + 1))
  )  # eq. 19, with G_a (row 2)
  x_gvf = relu(sum(gated_v[t] * g_vf[:, t - 1] for t in range(1, m + 1)))  # eq. 20
  return np.vstack([x_gaf, x_gvf]), gates | {'audio_final': g_af, 'visual_final': g_vf}


# Layers, rows being frames or images.


def dense(x, w):
  return x @ w['kernel'] + w['bias']


def leaky_relu(x):
  return np.where(x > 0, x, 0.01 * x)


def norm(x, w, s):
  return (x - s['mean']) / np.sqrt(s['var'] + 1e-5) * w['scale'] + w['bias']


def prelu(x, w):
  return np.where(x > 0, x, w['slope'] * x)


def conv(x, w, stride=1):
  """Convolves as PyTorch's Conv2d with padding = kernel // 2 on each side.

  (N,H,W,C) -> (N,(H+2p-k)//stride+1,...,width).
  """
  p = w['kernel'].shape[0] // 2
  x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
  patches = sliding_window_view(x, w['kernel'].shape[:2], axis=(1, 2))[
    :, ::stride, ::stride
  ]  # (N,H,W,C,k,k)
  return np.einsum('nhwcij,ijco->nhwo', patches, w['kernel'], optimize=True) + w.get('bias', 0.0)


def max_pool(x, size, stride, pad=0):
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
  return sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride].max(axis=(-1, -2))


# The predecessors' code: RJCA over channels, and LFAN. Rows are frames.


def rjca_author(w, x_v, x_a, m):
  """[X_v; X_a] after m recursions of the authors' formulation."""
  for t in range(1, m + 1):
    wt, joint = w[f'recursion_{t}'], np.hstack([x_v, x_a])
    if 'joint' in wt:
      joint = dense(joint, wt['joint'])
    x_v, x_a = (co_attention(wt['visual'], x_v, joint), co_attention(wt['audio'], x_a, joint))
  return np.hstack([x_v, x_a])


def author_recursions(w, x_a, x_v, m):
  """Returns the features that the gates weigh, in the authors' formulation.

  Columns are frames, as in `recursions`.
  """
  series = [np.split(rjca_author(w, x_v.T, x_a.T, t).T, [len(x_v)]) for t in range(m + 1)]
  return [x_a for _, x_a in series], [x_v for x_v, _ in series]


def co_attention(w, x, joint):
  n = len(x)
  key = (
    x.T @ w['key']['kernel'][:n, :n] + w['key']['bias'][:n]
  )  # K_m = Linear over time of X_m^T: D_m x L
  c = np.tanh(key @ joint / np.sqrt(joint.shape[1]))  # C_m: D_m x D
  weighted = relu(np.tanh(dense(x, w['value']) @ c))  # W_m: L x D
  return x + relu(dense(weighted, w['output']))


def lfan(w, x_v, x_a, heads):
  """[X_v; follower], frame by frame and head by head."""
  rows = []
  for v, a in zip(x_v, x_a, strict=True):
    mixed = []
    parts = [
      np.split(dense(x, w[f'{name}_qkv']), heads) for name, x in (('visual', v), ('audio', a))
    ]
    for head in range(heads):
      q, k, values = np.split(
        np.array([part[head] for part in parts]), 3, axis=1
      )  # 2 x width/heads
      mixed.append(softmax(q @ k.T / np.sqrt(q.shape[1])) @ values + values)
    y = dense(np.concatenate([row for head in mixed for row in head]), w['output'])
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * w['norm']['scale'] + w['norm']['bias']
    rows.append(np.concatenate([v, y]))
  return np.array(rows)


# Temporal convolution and head.


def causal_conv(x, w, dilation):
  """Convolves x (L,C) causally, with weight norm.

  y[t] = b + sum over taps i of x[t - (k-1-i) dilation] K[i], K = g V / |V| for each output channel.
  """
  kernel = w['scale'] * w['direction'] / np.sqrt((w['direction'] ** 2).sum((0, 1)))
  past = (len(kernel) - 1) * dilation
  padded = np.vstack([np.zeros((past, x.shape[1])), x])
  return w['bias'] + sum(
    padded[i * dilation : i * dilation + len(x)] @ tap for i, tap in enumerate(kernel)
  )


def tcn(x, w, levels):
  for i in range(levels):
    residual = dense(x, w[f'level{i}_residual']) if f'level{i}_residual' in w else x
    y = leaky_relu(causal_conv(x, w[f'level{i}_conv0'], 2**i))
    y = leaky_relu(causal_conv(y, w[f'level{i}_conv1'], 2**i))
    x = leaky_relu(y + residual)
  return x


def regressor(x, w, s):
  return np.tanh(dense(leaky_relu(norm(dense(x, w['hidden']), w['norm'], s['norm'])), w['output']))


# Towers.


def unit_ir(x, w, s, stride):
  if 'shortcut_conv' in w:
    shortcut = norm(conv(x, w['shortcut_conv'], stride), w['shortcut_norm'], s['shortcut_norm'])
  else:
    shortcut = max_pool(x, 1, stride)
  y = conv(norm(x, w['norm1'], s['norm1']), w['conv1'])
  y = conv(prelu(y, w['prelu']), w['conv2'], stride)
  return norm(y, w['norm2'], s['norm2']) + shortcut


def bottleneck(x, w, s, stride):
  shortcut = x
  if 'shortcut_conv' in w:
    shortcut = norm(conv(x, w['shortcut_conv'], stride), w['shortcut_norm'], s['shortcut_norm'])
  y = relu(norm(conv(x, w['conv1']), w['norm1'], s['norm1']))
  y = relu(norm(conv(y, w['conv2'], stride), w['norm2'], s['norm2']))
  return relu(norm(conv(y, w['conv3']), w['norm3'], s['norm3']) + shortcut)


def stages(x, w, s, unit):
  for stage in ('stage1', 'stage2', 'stage3', 'stage4'):
    for i in range(len(w[stage])):
      stride = 2 if i == 0 and stage != 'stage1' else 1
      x = unit(x, w[stage][f'unit{i}'], s[stage][f'unit{i}'], stride)
  return x


def ir50(x, w, s):
  x = prelu(
    norm(conv(x, w['input']['conv']), w['input']['norm'], s['input']['norm']), w['input']['prelu']
  )
  x = stages(x, w, s, unit_ir)
  w, s = w['output'], s['output']
  x = norm(x, w['norm1'], s['norm1']).reshape(len(x), -1)
  x = norm(dense(x, w['dense']), w['norm2'], s['norm2'])
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def resnet50(x, w, s):
  x = relu(norm(conv(x, w['input']['conv'], 2), w['input']['norm'], s['input']['norm']))
  x = stages(max_pool(x, 3, 2, pad=1), w, s, bottleneck)
  return dense(x.mean((1, 2)), w['output'])


def vggish(x, w):
  """VGG 'A' of torchvggish, (N,96,64), flattened as (6,4,C); no ReLU at the end."""
  x = x[..., None]
  for layer in ('conv1', 'M', 'conv2', 'M', 'conv3_1', 'conv3_2', 'M', 'conv4_1', 'conv4_2', 'M'):
    x = max_pool(x, 2, 2) if layer == 'M' else relu(conv(x, w[layer]))
  flat = np.array(
    [[image[h, k, c] for h in range(6) for k in range(4) for c in range(x.shape[3])] for image in x]
  )
  return dense(relu(dense(relu(dense(flat, w['fc1_1'])), w['fc1_2'])), w['fc2'])


# For the comparison: parameters that are nobody's initial values, and a Flax module in the wanted
# precision.


def draw(model, *inputs, seed=0):
  """Draws random float64 variables of a Flax module that is called with inputs.

  They are {'params': ..., 'batch_stats': ...}.
  """
  shapes = jax.eval_shape(
    lambda: model.init({'params': jax.random.key(0), 'dropout': jax.random.key(0)}, *inputs)
  )
  rng = np.random.default_rng(seed)

  def fill(name, node):
    if isinstance(node, dict):
      return {key: fill(key, value) for key, value in sorted(node.items())}
    if name in ('w_c', 'w_h'):
      return 2 / len(node) * rng.normal(size=node.shape)
    if name in ('scale', 'var', 'slope'):
      return rng.uniform(0.5, 1.5, node.shape)
    if len(node.shape) == 1:  # biases and means
      return 0.3 * rng.normal(size=node.shape)
    return rng.normal(size=node.shape) / np.sqrt(np.prod(node.shape[:-1]))

  return {key: fill(key, tree) for key, tree in shapes.items() if key in ('params', 'batch_stats')}


def compute(function, *trees, dtype=np.float64):
  """Returns function(*trees) as NumPy arrays, with JAX computing in dtype.

  Floats are cast to it first.
  """

  def cast(leaf):
    leaf = np.asarray(leaf)
    return leaf.astype(dtype) if leaf.dtype.kind == 'f' else leaf

  with jax.enable_x64(dtype == np.float64):
    return jax.tree.map(np.asarray, function(*jax.tree.map(cast, trees)))
