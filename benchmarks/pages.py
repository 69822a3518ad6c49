"""Blocks between markers in Markdown pages, which commands write."""


def fill(text, name, block):
  """Puts a block between the markers <!-- name --> and <!-- /name --> of a Markdown text."""
  before, rest = text.split(f'<!-- {name} -->')
  return f'{before}<!-- {name} -->\n{block}\n<!-- /{name} -->' + rest.split(f'<!-- /{name} -->')[1]
