"""Builds the PyTorch program that benchmarks time: towers, TCNs and a head; needs PyTorch."""

import math

import torch
from torch import nn
from torch.nn import functional

from avjax.system import System, steps
from avjax.training.plan import make_stages
from benchmarks.torch_reference import IR50, TemporalConvNet, VGGish


class ByPosition(nn.Module):
  """Flattens maps (N,C,H,W) as height, width, channel."""

  def forward(self, x):
    return x.permute(0, 2, 3, 1).flatten(1)


def in_order(visual, audio):
  """Returns {avjax's path: module} of the parts of both towers, in the order in which they run."""
  names = [f'stage{i + 1}/unit{j}' for i, count in enumerate(visual.counts) for j in range(count)]
  faces = {'visual/input': visual.input_layer}
  faces |= {f'visual/{name}': unit for name, unit in zip(names, visual.body, strict=True)}
  faces['visual/output'] = visual.output_layer
  groups = []  # a convolution or dense layer with what follows it
  for module in (*audio.features, ByPosition(), *audio.embeddings):
    if isinstance(module, (nn.Conv2d, nn.Linear)):
      groups.append([module])
    else:
      groups[-1].append(module)
  names = ('conv1', 'conv2', 'conv3_1', 'conv3_2', 'conv4_1', 'conv4_2', 'fc1_1', 'fc1_2', 'fc2')
  return faces, {
    f'audio/{name}': nn.Sequential(*group) for name, group in zip(names, groups, strict=True)
  }


class Peer(nn.Module):
  """Predicts from frames (N,3,S,S) and log-mel windows (N,1,96,64) of N = clips * length frames.

  is_trainable: tells whether the stage trains the parameter at a path of avjax. Parts before the
  first that is trained run without gradients, in evaluation mode.
  """

  def __init__(self, config, clips, is_trainable):
    super().__init__()
    self.shape = clips, config.data.length
    settings = config.model
    ir50, audio, temporal = settings.visual.ir50, settings.audio, settings.temporal
    last = math.ceil(config.crop / 8) ** 2
    visual = IR50(ir50.widths, ir50.units, ir50.features, last)
    visual.counts = ir50.units
    parts = in_order(visual, VGGish(audio.widths, audio.hidden, audio.features))
    self.frozen, self.open = nn.ModuleList(), nn.ModuleList()
    for tower in parts:
      first = next((i for i, path in enumerate(tower) if is_trainable(path)), len(tower))
      modules = list(tower.values())
      self.frozen.append(nn.Sequential(*modules[:first]))
      self.open.append(nn.Sequential(*modules[first:]))
    self.frozen.requires_grad_(False)
    self.visual_tcn = TemporalConvNet(ir50.features, temporal.visual)
    self.audio_tcn = TemporalConvNet(audio.features, temporal.audio)
    widths = temporal.visual[-1], temporal.audio[-1]
    self.visual_norm, self.audio_norm = (
      nn.BatchNorm1d(width) if temporal.norm else nn.Identity() for width in widths
    )
    hidden, outputs = settings.head.hidden, len(config.targets)
    self.head = nn.Sequential(
      nn.Linear(sum(widths), hidden), nn.LeakyReLU(), nn.Linear(hidden, outputs), nn.Tanh()
    )

  def train(self, mode=True):
    super().train(mode)
    self.frozen.eval()
    return self

  def forward(self, faces, log_mel):
    with torch.no_grad():
      found = [trunk(x) for trunk, x in zip(self.frozen, (faces, log_mel), strict=True)]
    visual, audio = (part(x) for part, x in zip(self.open, found, strict=True))
    return self.decode(functional.normalize(visual), audio)

  def as_predecessors(self, faces, log_mel):
    """Runs the towers in one piece, outside torch.no_grad()."""
    pairs = zip(self.frozen, self.open, (faces, log_mel), strict=True)
    visual, audio = (part(trunk(x)) for trunk, part, x in pairs)
    return self.decode(functional.normalize(visual), audio)

  def decode(self, visual, audio):
    clips, length = self.shape
    visual, audio = (
      norm(tcn(x.float().view(clips, length, -1).transpose(1, 2))).transpose(1, 2)
      for x, tcn, norm in (
        (visual, self.visual_tcn, self.visual_norm),
        (audio, self.audio_tcn, self.audio_norm),
      )
    )
    return self.head(torch.cat([visual, audio], -1))


def ccc_loss(predicted, labels):
  """Returns 1 - CCC of each clip (B,L,C), averaged."""
  means = predicted.mean(1), labels.mean(1)
  covariance = ((predicted - means[0][:, None]) * (labels - means[1][:, None])).mean(1)
  variances = predicted.var(1, unbiased=False) + labels.var(1, unbiased=False)
  return (1 - 2 * covariance / (variances + (means[0] - means[1]) ** 2 + 1e-8)).mean()


def make_step(config, clips, device, way, what):
  """Returns a function that makes one step of training or of prediction.

  Args:
    config: a config of avjax whose visual tower is IR-50.
    clips: windows in a batch.
    device: 'cuda' or 'cpu'.
    way: 'compiled': channels last, compiled, the frozen trunk under torch.no_grad(), and on a
      GPU in bfloat16; 'eager': the same without compilation; or 'predecessors': float32, eager,
      all of the towers in autograd, and the batch sent from the host at every step.
    what: ['predict'], or ['train', STAGE].
  """
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  training, frames, crop = what[0] == 'train', clips * config.data.length, config.crop
  tuned = way != 'predecessors'
  stages = make_stages(config, steps.parameter_paths(System.from_config(config).shapes['params']))
  model = Peer(config, clips, stages[int(what[1]) - 1 if training else 0])
  model = model.to(device).train(training)
  if tuned:
    model = model.to(memory_format=torch.channels_last)
  call = torch.compile(model) if way == 'compiled' else model if tuned else model.as_predecessors
  host = (
    torch.randint(0, 256, (frames, 3, crop, crop), dtype=torch.uint8),
    torch.randn(frames, 1, 96, 64),
  )
  if device == 'cuda':
    host = tuple(x.pin_memory() for x in host)
  there = tuple(x.to(device) for x in host)
  labels = torch.rand(clips, config.data.length, len(config.targets), device=device) * 2 - 1
  opened = [x for x in model.parameters() if x.requires_grad]
  adam = torch.optim.Adam(opened, 1e-5, weight_decay=1e-3, fused=device == 'cuda')

  def forward():
    faces, log_mel = there if tuned else (x.to(device, non_blocking=True) for x in host)
    faces = (faces.float() / 255 - 0.5) / 0.5
    if tuned:
      faces = faces.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device, torch.bfloat16, enabled=tuned and device == 'cuda'):
      return call(faces, log_mel)

  def step():
    if not training:
      with torch.no_grad():
        return forward()
    loss = ccc_loss(forward().float(), labels)
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()
    return loss

  return step
