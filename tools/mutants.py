# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Mutation testing: change one thing at a time in a module, and see whether its tests notice.

    python tools/mutants.py MODULE TEST... [--only N,N...]     for instance
    python tools/mutants.py vla_deploy.core.limiter test/core/test_braking_limiter.py test/core

No file is changed: each mutant is compiled in a process of its own and given to the import system
there. The tests run in the order given and stop at the first failure. Prints the mutants that no
test noticed, and the score; exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLOWEST = 5.0
WAITING = 20.0  # so many times the CPU time a mutant may take by the clock
"""A mutant is noticed where its tests take this many times what they take without one."""

COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
           ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
           ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
CALLS = {'min': 'max', 'max': 'min', 'any': 'all', 'all': 'any'}


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """Yield what to call each change of a node, and what makes it of a copy of the node."""
    def put(**fields: object) -> Callable[[ast.AST], ast.AST]:
        def change(made: ast.AST) -> ast.AST:
            for name, value in fields.items():
                setattr(made, name, value)
            return made
        return change

    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            other = COMPARE[type(op)]
            yield f'{type(op).__name__} to {other.__name__}', put(
                ops=[*node.ops[:i], other(), *node.ops[i + 1:]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        yield 'arithmetic', put(op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield 'and/or', put(op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.UnaryOp):
        yield 'sign or not left out', lambda made: made.operand  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f'{node.value} turned', put(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield f'{node.value} changed', put(value=node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield f'{node.value!r} changed', put(value=node.value + '?')
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield f'{node.func.id} to {CALLS[node.func.id]}', put(
            func=ast.Name(CALLS[node.func.id], ast.Load()))
    elif isinstance(node, (ast.If, ast.IfExp)) and not isinstance(node.test, ast.Compare):
        yield 'condition turned', put(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield 'call left out', lambda made: ast.Pass()
    elif isinstance(node, ast.Return) and isinstance(node.value, (ast.Call, ast.Attribute)):
        yield 'None returned', put(value=ast.Constant(None))
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and not (
        isinstance(node.value, ast.Constant)):
        yield 'None assigned', put(value=ast.Constant(None))


def skipped(node: ast.AST) -> list[ast.AST]:
    """What of a node is no behaviour: annotations, imports, docstrings, text of messages."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert)):
        return [node]
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and (
        node.col_offset == 0):
        return [node]  # a name for a type
    found: list[ast.AST | None] = [getattr(node, name, None) for name in ('annotation', 'returns')]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        found.append(node)
    return [part for part in found if part is not None]


def places(tree: ast.Module) -> list[tuple[int, str, Callable[[ast.AST], ast.AST]]]:
    """Every change of a tree: number of the node in the order of `ast.walk`, name, maker."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        for part in skipped(node):
            left_out.update(id(inner) for inner in ast.walk(part))
    return [(number, what, change) for number, node in enumerate(ast.walk(tree))
            if id(node) not in left_out for what, change in changes(node)]


def mutant(tree: ast.Module, number: int, change: Callable[[ast.AST], ast.AST]) -> ast.Module:
    """A copy of a tree in which one node is changed."""
    made = copy.deepcopy(tree)
    target = next(node for i, node in enumerate(ast.walk(made)) if i == number)

    class Change(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return change(node) if node is target else super().generic_visit(node)

    return ast.fix_missing_locations(Change().visit(made))


class Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module of another source to the import system."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self._module, self._path, self._tree = module, path, tree

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Find that module alone."""
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        """Run the changed source."""
        exec(compile(self._tree, str(self._path), 'exec'), module.__dict__)


def noticed(module: str, path: Path, tree: ast.Module, tests: list[str], limit_s: float) -> bool:
    """Whether the tests fail, or take too long, where the module is made of this tree."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # CPU time: whatever runs beside
        signal.setitimer(signal.ITIMER_REAL, WAITING * limit_s)  # for one that waits
        sys.meta_path.insert(0, Loader(module, path, tree))
        import pytest
        os._exit(int(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', *tests])))
    status = os.waitpid(child, 0)[1]
    return status != 0


def main() -> int:
    """Try every mutant of a module."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('module')
    parser.add_argument('tests', nargs='+')
    parser.add_argument('--only', help='numbers of mutants, with commas')
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    import hypothesis.configuration
    import numpy  # noqa: F401  loaded once, for all
    import pytest  # noqa: F401
    hypothesis.configuration.set_hypothesis_home_dir(tempfile.mkdtemp())
    generate = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile('mutants', phases=generate, database=None)
    hypothesis.settings.load_profile('mutants')

    path = ROOT / (arguments.module.replace('.', '/') + '.py')
    tree = ast.parse(path.read_text())
    began = time.monotonic()
    if noticed(arguments.module, path, tree, arguments.tests, 3600.0):
        print('the tests fail without any mutant', file=sys.stderr)
        return 2
    limit_s = SLOWEST * (time.monotonic() - began) + 10.0
    every = places(tree)
    chosen = range(len(every))
    if arguments.only:
        chosen = [int(number) for number in arguments.only.split(',')]
    nodes = list(ast.walk(tree))
    survivors = 0
    for i in chosen:
        number, what, change = every[i]
        if not noticed(arguments.module, path, mutant(tree, number, change), arguments.tests,
                       limit_s):
            survivors += 1
            node = nodes[number]
            line = getattr(node, 'lineno', 0)
            print(f'{path.name}:{line}: {i}: {what}: {ast.unparse(node)[:70]!r}', flush=True)
    print(f'{arguments.module}: {len(chosen) - survivors} of {len(chosen)} mutants noticed')
    return 1 if survivors else 0


if __name__ == '__main__':
    sys.exit(main())
