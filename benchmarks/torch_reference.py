"""Builds the towers and two whole models of the predecessors in PyTorch, for `make parity`.

The code was written from the descriptions in docs/weights.md, not from the predecessors' files. The
names of modules are theirs, so that a state dict from here has the names under which weights are
published. Dropout is left out, since no two libraries draw it alike.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class UnitIR(nn.Module):
  """ArcFace's IR unit, (N,C,H,W)."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    if inputs == width:
      self.shortcut_layer = nn.MaxPool2d(1, stride)
    else:
      self.shortcut_layer = nn.Sequential(
        nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
      )
    self.res_layer = nn.Sequential(
      nn.BatchNorm2d(inputs),
      nn.Conv2d(inputs, width, 3, 1, 1, bias=False),
      nn.PReLU(width),
      nn.Conv2d(width, width, 3, stride, 1, bias=False),
      nn.BatchNorm2d(width),
    )

  def forward(self, x):
    return self.res_layer(x) + self.shortcut_layer(x)


class IR50(nn.Module):
  """(N,3,40,40) -> (N,512) of unit length. last: pixels of the last map, 5 x 5 of 40 x 40."""

  def __init__(self, widths=(64, 128, 256, 512), units=(3, 4, 14, 3), features=512, last=25):
    super().__init__()
    self.input_layer = nn.Sequential(
      nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
    )
    body, inputs = [], widths[0]
    for i, (width, count) in enumerate(zip(widths, units, strict=True)):
      for j in range(count):
        body.append(UnitIR(inputs, width, 2 if i > 0 and j == 0 else 1))
        inputs = width
    self.body = nn.Sequential(*body)
    self.output_layer = nn.Sequential(
      nn.BatchNorm2d(inputs),
      nn.Dropout(0),
      nn.Flatten(),
      nn.Linear(inputs * last, features),
      nn.BatchNorm1d(features),
    )

  def forward(self, x):
    return F.normalize(self.output_layer(self.body(self.input_layer(x))))


class Bottleneck(nn.Module):
  """torchvision's bottleneck, stride in the 3x3 convolution."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
    self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
    self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
    self.downsample = None
    if stride != 1 or inputs != 4 * width:
      self.downsample = nn.Sequential(
        nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
      )

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
  """(N,3,H,W) -> (N,2048): torchvision's resnet50 up to the mean over the image."""

  def __init__(self):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
    inputs = 64
    for i, (width, count) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
      blocks = []
      for j in range(count):
        blocks.append(Bottleneck(inputs, width, 2 if i > 0 and j == 0 else 1))
        inputs = 4 * width
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(2048, 1000)  # published files have it; our tower does not

  def forward(self, x):
    x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
    return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class VGGish(nn.Module):
  """(N,1,96,64) -> (N,128), without the last ReLU; flattened as height, width, channel."""

  def __init__(self, widths=(64, 128, 256, 256, 512, 512), hidden=4096, features=128):
    super().__init__()
    layers, inputs = [], 1
    for i, width in enumerate(widths):
      layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
      layers += [nn.MaxPool2d(2)] if i in (0, 1, 3, 5) else []
      inputs = width
    self.features = nn.Sequential(*layers)
    self.embeddings = nn.Sequential(
      nn.Linear(24 * inputs, hidden),
      nn.ReLU(),
      nn.Linear(hidden, hidden),
      nn.ReLU(),
      nn.Linear(hidden, features),
    )

  def forward(self, x):
    return self.embeddings(self.features(x).permute(0, 2, 3, 1).flatten(1))


class TemporalBlock(nn.Module):
  """Two causal, weight-normed convolutions with a residual, (B,C,L)."""

  def __init__(self, inputs, width, kernel, dilation):
    super().__init__()
    norm = nn.utils.parametrizations.weight_norm
    self.past = (kernel - 1) * dilation
    self.conv1 = norm(nn.Conv1d(inputs, width, kernel, dilation=dilation))
    self.conv2 = norm(nn.Conv1d(width, width, kernel, dilation=dilation))
    self.downsample = nn.Conv1d(inputs, width, 1) if inputs != width else None

  def forward(self, x):
    y = F.leaky_relu(self.conv1(F.pad(x, (self.past, 0))))
    y = F.leaky_relu(self.conv2(F.pad(y, (self.past, 0))))
    return F.leaky_relu(y + (x if self.downsample is None else self.downsample(x)))


class TemporalConvNet(nn.Module):
  """(B,C,L) -> (B,widths[-1],L)."""

  def __init__(self, inputs, widths, kernel=5):
    super().__init__()
    self.network = nn.Sequential(
      *(
        TemporalBlock(i, o, kernel, 2**level)
        for level, (i, o) in enumerate(zip((inputs, *widths), widths, strict=False))
      )
    )

  def forward(self, x):
    return self.network(x)


class DenseCoAttention(nn.Module):
  """Computes the attention of one recursion of RJCA as in its authors' code.

  Modality 1 is visual, modality 2 audio.
  """

  def __init__(self, dims, length):
    super().__init__()
    for i, dim in enumerate(dims, 1):
      setattr(self, f'key{i}_linear', nn.Linear(length, length))
      setattr(self, f'value{i}_linear', nn.Linear(dim, dim))

  def forward(self, *xs):
    joint = torch.cat(xs, -1)
    weighted = []
    for i, x in enumerate(xs, 1):
      key = getattr(self, f'key{i}_linear')(x.transpose(1, 2))
      scores = torch.tanh(key @ joint / math.sqrt(joint.shape[-1]))
      weighted.append(F.relu(torch.tanh(getattr(self, f'value{i}_linear')(x) @ scores)))
    return weighted


class CoAttentionLayer(nn.Module):
  """Computes one recursion of RJCA."""

  def __init__(self, dims, length):
    super().__init__()
    self.dense_coattn = DenseCoAttention(dims, length)
    self.linears = nn.ModuleList(nn.Sequential(nn.Linear(sum(dims), dim)) for dim in dims)

  def forward(self, *xs):
    attended = zip(xs, self.linears, self.dense_coattn(*xs), strict=True)
    return [x + F.relu(linear(weighted)) for x, linear, weighted in attended]


class CoAttention(nn.Module):
  """Computes all recursions of RJCA."""

  def __init__(self, dims, length, recursions):
    super().__init__()
    self.dcn_layers = nn.ModuleList(CoAttentionLayer(dims, length) for _ in range(recursions))

  def forward(self, *xs):
    for layer in self.dcn_layers:
      xs = layer(*xs)
    return torch.cat(list(xs), -1)


class MultimodalAttention(nn.Module):
  """LFAN's attention, in which the modalities of a frame are the tokens."""

  def __init__(self, dims, width, heads):
    super().__init__()
    self.heads, self.width = heads, width
    self.qkv_proj = nn.ModuleDict({name: nn.Linear(dim, 3 * width) for name, dim in dims.items()})
    self.o_proj = nn.Linear(width * len(dims), width * len(dims))

  def forward(self, xs):
    tokens = []
    for name, x in xs.items():
      x = self.qkv_proj[name](x)
      tokens.append(
        x.reshape(*x.shape[:2], self.heads, 1, -1).transpose(1, 2)
      )  # (B,heads,L,1,3*width/heads)
    q, k, v = torch.cat(tokens, -2).chunk(3, -1)
    scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
    mixed = (scores @ v + v).transpose(1, 2)  # (B,L,heads,2,width/heads)
    return self.o_proj(mixed.flatten(2))


class LeaderFollower(nn.Module):
  """Concatenates [leader; follower]: visual features, and both modalities after attention."""

  def __init__(self, dims, width, heads):
    super().__init__()
    self.layers = nn.Module()
    self.layers.self_attn = MultimodalAttention(dims, width, heads)
    self.layers.norm1 = nn.LayerNorm(width * len(dims))

  def forward(self, xs):
    return torch.cat([xs['video'], self.layers.norm1(self.layers.self_attn(xs))], -1)


class Predecessor(nn.Module):
  """A whole model: images (B,L,3,40,40), log_mel (B,L,1,96,64) -> (B,L,1) in [-1, 1].

  The sizes come from a config of avjax.
  """

  def __init__(self, config):
    super().__init__()
    m = config.model
    visual, audio, head = m.visual.ir50, m.audio, m.head
    dims = {'video': m.temporal.visual[-1], 'logmel': m.temporal.audio[-1]}
    self.spatial = nn.ModuleDict({'visual': nn.Module(), 'audio': nn.Module()})
    self.spatial['visual'].backbone = IR50(visual.widths, visual.units, visual.features)
    self.spatial['audio'].backbone = VGGish(audio.widths, audio.hidden, audio.features)
    self.temporal = nn.ModuleDict(
      {
        'video': TemporalConvNet(visual.features, m.temporal.visual, m.temporal.kernel),
        'logmel': TemporalConvNet(audio.features, m.temporal.audio, m.temporal.kernel),
      }
    )
    self.bn = nn.ModuleDict({name: nn.BatchNorm1d(dim) for name, dim in dims.items()})
    if m.fusion.name == 'lfan':
      self.fusion = LeaderFollower(dims, m.fusion.width, m.fusion.heads)
      self.regressor = nn.Linear(dims['video'] + 2 * m.fusion.width, 1)
    else:
      self.coattn = CoAttention(list(dims.values()), config.data.length, m.fusion.recursions)
      self.regressor1, self.bn1 = (
        nn.Linear(sum(dims.values()), head.hidden),
        nn.BatchNorm1d(head.hidden),
      )
      self.regressor2 = nn.Linear(head.hidden, 1)

  def forward(self, images, log_mel):
    clips, frames = images.shape[:2]
    xs = {}
    for name, tower, x in (('video', 'visual', images), ('logmel', 'audio', log_mel)):
      x = self.spatial[tower].backbone(x.flatten(0, 1)).reshape(clips, frames, -1).transpose(1, 2)
      xs[name] = self.bn[name](self.temporal[name](x)).transpose(1, 2)
    if hasattr(self, 'fusion'):
      return torch.tanh(self.regressor(self.fusion(xs)))
    x = self.bn1(self.regressor1(self.coattn(xs['video'], xs['logmel'])).transpose(1, 2)).transpose(
      1, 2
    )
    return torch.tanh(self.regressor2(F.leaky_relu(x)))
