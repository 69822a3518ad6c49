import pathlib
DOCS = pathlib.Path(__file__).parents[2] / 'docs'
TUNING, FIGURES = DOCS / 'disagreement_tuning.json', DOCS / 'disagreement.json'
def write(): pass
