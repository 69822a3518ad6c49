"""RAAV, reliability-aware audio-visual fusion (Ryumina et al. 2026), of face and voice: a gate \
over both, audio as context, an encoder without positions; AdamW, clipped gradients."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'raav', 'width': 256, 'heads': 4, 'layers': 1})
  config.model.fusion.update(latents=4, dropout=0.1, gate_audio=True, priors=(0.85, 0.15))
  config.model.head = ConfigDict({'name': 'gelu', 'hidden': 256, 'dropout': 0.1, 'norm': 'input'})
  config.loss.scope = 'batch'
  config.optimizer.update(decay='decoupled', weight_decay=0.01, clip=1.0)
