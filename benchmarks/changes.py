"""Lists small changes of Python code that its tests should notice, for benchmarks/mutants.py.

Comparisons, arithmetic, numbers, truth values, conditions and keyword arguments are changed; text,
messages of errors, types, assertions and zip's `strict` are not.
"""

import ast
import dataclasses

COMPARISONS = {
  ast.Lt: (ast.LtE, ast.GtE),
  ast.LtE: (ast.Lt, ast.Gt),
  ast.Gt: (ast.GtE, ast.LtE),
  ast.GtE: (ast.Gt, ast.Lt),
  ast.Eq: (ast.NotEq,),
  ast.NotEq: (ast.Eq,),
  ast.Is: (ast.IsNot,),
  ast.IsNot: (ast.Is,),
  ast.In: (ast.NotIn,),
  ast.NotIn: (ast.In,),
}
OPERATORS = {
  ast.Add: ast.Sub,
  ast.Sub: ast.Add,
  ast.Mult: ast.Div,
  ast.Div: ast.Mult,
  ast.FloorDiv: ast.Mult,
  ast.Pow: ast.Mult,
  ast.BitAnd: ast.BitOr,
  ast.BitOr: ast.BitAnd,
}
# What is never changed: it has no effect, or only on messages and types.
SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
SKIPPED_FIELDS = ('annotation', 'returns', 'decorator_list', 'format_spec')


@dataclasses.dataclass(frozen=True)
class Change:
  """Describes one change of a file: the text from `start` to `end` becomes `new`.

  line: of its first character, from 1. before, after: the lines that it is in, on one line each.
  """

  path: str
  function: str
  line: int
  start: int
  end: int
  new: str
  before: str
  after: str


def variants(node):
  """Yields (expression, text that may replace it) for each way to change one thing of a node."""

  def text(**fields):
    return ast.unparse(type(node)(**{**dict(ast.iter_fields(node)), **fields}))

  match node:
    case ast.Compare(ops=[operator]):
      for other in COMPARISONS[type(operator)]:
        yield node, text(ops=[other()])
    case ast.BinOp(left, op, right) if type(op) in OPERATORS and not is_text(left, right):
      changed = text(op=OPERATORS[type(op)]())
      yield node, f'({changed})' if isinstance(op, ast.Pow) else changed
    case ast.BoolOp():
      yield node, f'({text(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())})'
    case ast.UnaryOp(op=ast.Not() | ast.USub()):
      yield node, f'({ast.unparse(node.operand)})'
    case ast.IfExp():
      yield node, text(body=node.orelse, orelse=node.body)
    case ast.If() | ast.While() if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
      yield node.test, f'not {ast.unparse(node.test)}'
    case ast.Constant(value=bool()):
      yield node, repr(not node.value)
    case ast.Constant(value=int() | float() as old):
      for value in (old + 1, old - 1) if old in (0, 1, 2) else (2 * old,):
        yield node, f'({value})' if value < 0 else str(value)
    case ast.Call():
      for keyword in node.keywords:
        if keyword.arg not in (None, 'strict'):
          yield node, text(keywords=[other for other in node.keywords if other is not keyword])


def is_text(*operands):
  """Tells whether an operand is a piece of text, as in 'a' + 'b' and folder / 'name' / str(i)."""
  return any(
    isinstance(operand, ast.JoinedStr)
    or (isinstance(operand, ast.Constant) and isinstance(operand.value, str))
    or (isinstance(operand, ast.BinOp) and is_text(operand.left, operand.right))
    for operand in operands
  )


def is_skipped(node):
  """Tells whether a part of the code is left as it is, since it is about messages or types only."""
  return isinstance(node, SKIPPED) or (
    isinstance(node, ast.Call) and ast.unparse(node.func) == 'isinstance'
  )


def expressions(node, function=''):
  """Yields (name of the function, expression) of everything in a module that may be changed."""
  for field, value in ast.iter_fields(node):
    if field in SKIPPED_FIELDS:
      continue
    for child in value if isinstance(value, list) else [value]:
      if not isinstance(child, ast.AST) or is_skipped(child):
        continue
      name = f'{function}.{child.name}' if hasattr(child, 'name') and child.name else function
      yield name, child
      yield from expressions(child, name)


def changes(path, source):
  """Lists all changes of one file; source: its text."""
  lines = source.splitlines(keepends=True)
  starts = [0]
  for line in lines:
    starts.append(starts[-1] + len(line.encode()))
  found, data = [], source.encode()
  for function, parent in expressions(ast.parse(source)):
    for node, new in variants(parent):
      start = starts[node.lineno - 1] + node.col_offset
      end = starts[node.end_lineno - 1] + node.end_col_offset
      whole = starts[node.lineno - 1], starts[node.end_lineno]
      before = data[slice(*whole)].decode()
      after = (data[whole[0] : start] + new.encode() + data[end : whole[1]]).decode()
      found.append(
        Change(
          path,
          function.lstrip('.'),
          node.lineno,
          start,
          end,
          new,
          ' '.join(before.split()),
          ' '.join(after.split()),
        )
      )
  return found
