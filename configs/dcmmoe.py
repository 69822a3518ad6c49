"""DCMMOE, directed cross-modal mixture of experts (Ryumina et al. 2026), of face and voice: the \
experts as in their code, their gate a reconstruction; AdamW."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'dcmmoe', 'width': 256, 'layers': 5, 'heads': 8})
  config.model.fusion.update(dropout=0.1, audio_expert=True)
  config.model.head = ConfigDict({'name': 'gelu', 'hidden': 256, 'dropout': 0.1, 'norm': 'hidden'})
  config.optimizer.update(decay='decoupled', weight_decay=0.01)
