"""Computes the metrics that are reported, in float64: CCC, PCC and RMSE.

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


# The metrics that a Target may name; of its first one, a higher value must be better.
METRICS = {'ccc': ccc, 'pcc': pcc, 'rmse': rmse}
