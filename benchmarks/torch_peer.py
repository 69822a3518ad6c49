"""The PyTorch program that `benchmarks.gpu` times: towers, TCNs and a head; needs PyTorch."""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_reference import IR50, TemporalConvNet, VGGish

# What the stages open of each tower, from its end, as configs/base.py has it: units of IR-50,
# and modules of VGGish's dense part, of which every second is a ReLU.
OPEN_UNITS, OPEN_DENSE = (0, 3, 6), (1, 3, 5)


class Peer(nn.Module):
  """Predicts from frames (N,3,S,S) and log-mel windows (N,1,96,64) of N = clips * length frames."""

  def __init__(self, config, clips, stage):
    super().__init__()
    self.shape = clips, config.data.length
    settings = config.model
    ir50, audio, temporal = settings.visual.ir50, settings.audio, settings.temporal
    self.visual = IR50(ir50.widths, ir50.units, ir50.features)
    self.audio = VGGish(audio.widths, audio.hidden, audio.features)
    self.visual_tcn = TemporalConvNet(ir50.features, temporal.visual)
    self.audio_tcn = TemporalConvNet(audio.features, temporal.audio)
    widths = temporal.visual[-1], temporal.audio[-1]
    self.visual_norm, self.audio_norm = map(nn.BatchNorm1d, widths)
    self.head = nn.Sequential(
      nn.Linear(sum(widths), 256), nn.LeakyReLU(), nn.Linear(256, len(config.targets)), nn.Tanh()
    )
    units, dense = list(self.visual.body), list(self.audio.embeddings)
    cut, dense_cut = len(units) - OPEN_UNITS[stage - 1], len(dense) - OPEN_DENSE[stage - 1]
    self.frozen = [self.visual.input_layer, *units[:cut], self.audio.features, *dense[:dense_cut]]
    self.trunk = nn.Sequential(self.visual.input_layer, *units[:cut])
    self.units, self.output = nn.Sequential(*units[cut:]), self.visual.output_layer
    self.dense_trunk = nn.Sequential(*dense[:dense_cut])
    self.dense = nn.Sequential(*dense[dense_cut:])
    for part in self.frozen:
      part.requires_grad_(False)

  def train(self, mode=True):
    super().train(mode)
    for part in self.frozen:
      part.eval()
    return self

  def forward(self, faces, log_mel):
    with torch.no_grad():
      visual = self.trunk(faces)
      audio = self.dense_trunk(self.audio.features(log_mel).permute(0, 2, 3, 1).flatten(1))
    visual = functional.normalize(self.output(self.units(visual)))
    return self.decode(visual, self.dense(audio))

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

  def as_predecessors(self, faces, log_mel):
    """Runs the towers in one piece, outside torch.no_grad()."""
    return self.decode(self.visual(faces), self.audio(log_mel))


def ccc_loss(predicted, labels):
  """Returns 1 - CCC of each clip (B,L,C), averaged."""
  means = predicted.mean(1), labels.mean(1)
  covariance = ((predicted - means[0][:, None]) * (labels - means[1][:, None])).mean(1)
  variances = predicted.var(1, unbiased=False) + labels.var(1, unbiased=False)
  return (1 - 2 * covariance / (variances + (means[0] - means[1]) ** 2 + 1e-8)).mean()


def make_step(config, clips, device, tuned, what):
  """Returns a function that makes one step of training or of prediction.

  Args:
    config: a config of avjax whose visual tower is IR-50.
    clips: windows in a batch.
    device: 'cuda' or 'cpu'.
    tuned: bfloat16, channels last, compiled, the frozen trunk under torch.no_grad(); else float32,
      eager, and the batch sent from the host at every step.
    what: ['predict'], or ['train', STAGE].
  """
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  training, frames, crop = what[0] == 'train', clips * config.data.length, config.crop
  model = Peer(config, clips, int(what[1]) if training else 1).to(device).train(training)
  if tuned:
    model = model.to(memory_format=torch.channels_last)
  call = torch.compile(model) if tuned else model.as_predecessors
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
    with torch.autocast(device, torch.bfloat16, enabled=tuned):
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
