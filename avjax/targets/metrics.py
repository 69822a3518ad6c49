"""Computes the metrics that are reported, in float64: CCC, PCC, RMSE, SAGR and bias.

Each takes prediction and label, (N,), and returns a float.
"""

import numpy as np


def ccc(prediction, label):
  """Computes the concordance correlation (paper, eq. 21) with biased variances.

  It is 0 where both are the same constant (0/0).
  """
  prediction, label = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
  covariance = np.mean((prediction - prediction.mean()) * (label - label.mean()))
  denominator = prediction.var() + label.var() + (prediction.mean() - label.mean()) ** 2
  return float(2 * covariance / denominator) if denominator != 0 else 0.0  # NaN stays NaN


def pcc(prediction, label):
  """Computes the Pearson correlation; 0 where either is constant."""
  prediction, label = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
  covariance = np.mean((prediction - prediction.mean()) * (label - label.mean()))
  denominator = prediction.std() * label.std()
  return float(covariance / denominator) if denominator != 0 else 0.0


def rmse(prediction, label):
  """Computes the root mean square error."""
  prediction, label = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
  return float(np.sqrt(np.mean((prediction - label) ** 2)))


def sagr(prediction, label):
  """Computes the sign agreement, the share of frames in which both have the same sign.

  0 is a sign of its own, as in the code of EmoNet (Toisoul et al. 2021, emonet/metrics.py): where
  the label is exactly 0, only a prediction of exactly 0 agrees.
  """
  return float(np.mean(np.sign(prediction) == np.sign(label)))


def bias(prediction, label):
  """Computes the mean of the prediction minus that of the label."""
  return float(np.mean(prediction, dtype=np.float64) - np.mean(label, dtype=np.float64))


# The metrics that a Target may name; of its first one, a higher value must be better.
METRICS = {'ccc': ccc, 'pcc': pcc, 'rmse': rmse, 'sagr': sagr, 'bias': bias}
