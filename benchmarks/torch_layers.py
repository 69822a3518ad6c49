"""Builds in PyTorch the layers that `make parity` compares by themselves.

They were written from the descriptions in avjax/models/fusion/, not from the predecessors' files.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Given(nn.Module):
  """Stands in for a dropout in training mode: multiplies by what it was given."""

  def __init__(self, factors):
    super().__init__()
    self.factors = factors

  def forward(self, x):
    return x * self.factors.to(x.dtype) if self.training else x


class EncoderLayer(nn.TransformerEncoderLayer):
  """PyTorch's own encoder layer, (B,L,D), whose dropouts are given. No frame attends to padding.

  mask: (B,L) bool, False on padding.
  factors: {PyTorch's name of a dropout: (B,L,D)}.
  """

  def __init__(self, width, heads, hidden, mask, factors):
    super().__init__(width, heads, hidden, dropout=0.0, batch_first=True)
    self.padding = torch.from_numpy(~mask)
    for name, values in factors.items():
      setattr(self, name, Given(torch.from_numpy(values)))

  def forward(self, x):
    return super().forward(x, src_key_padding_mask=self.padding[: len(x)])


class CrossAttention2021(nn.Module):
  """Cross-attention of 2021: visual (B,L,Dv), audio (B,L,Da) -> (B,L,Da+Dv)."""

  def __init__(self, visual, audio, residual):
    super().__init__()
    self.corr_weights, self.residual = nn.Parameter(torch.empty(audio, visual)), residual

  def forward(self, visual, audio):
    visual, audio = F.normalize(visual, dim=2), F.normalize(audio, dim=2)
    correlation = audio @ self.corr_weights @ visual.transpose(1, 2)
    attended = []
    for x, scores in ((audio, correlation), (visual, correlation.transpose(1, 2))):
      y = (x.transpose(1, 2) @ torch.softmax(scores, 1)).transpose(1, 2)
      attended.append(torch.tanh(x + y) if self.residual else y)
    return torch.cat(attended, -1)
