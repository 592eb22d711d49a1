"""The examples of public classes run; those of functions are collected where they are defined.

Public classes say that they belong to `coopt`, so that messages and pickles name what users import. pytest
collects the examples of a module only from what says that it belongs there, so those of the classes run here.
"""

from __future__ import annotations

import doctest

import pytest

import coopt

CLASSES = [name for name in coopt.__all__ if isinstance(getattr(coopt, name), type)]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CLASSES)
def test_examples_of_public_classes_run(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for examples in doctest.DocTestFinder().find(getattr(coopt, name), name, module=False, globs={}):
        runner.run(examples)
    assert runner.summarize(verbose=False).failed == 0


def test_public_classes_belong_to_the_package() -> None:
    assert {getattr(coopt, name).__module__ for name in CLASSES} == {"coopt"}
