"""Replaces the blocks of Markdown pages that benchmarks write."""


def fill(text, name, block):
  """Returns the Markdown text with `block` between its markers <!-- name --> and <!-- /name -->."""
  before, rest = text.split(f'<!-- {name} -->')
  return f'{before}<!-- {name} -->\n{block}\n<!-- /{name} -->' + rest.split(f'<!-- /{name} -->')[1]
