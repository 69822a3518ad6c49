"""The pure steps: one update, one prediction. Runs without TensorFlow."""







TARGETS = ('valence', 'arousal')
