"""The public surface is small, and changes only on purpose."""

from __future__ import annotations

import inspect

import nornir_k3s
from nornir_k3s import errors


def test_everything_public_is_there_and_documented() -> None:
    for name in nornir_k3s.__all__:
        assert inspect.getdoc(getattr(nornir_k3s, name)), name


def test_every_error_is_public_and_in_the_tree_that_is_shown() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.K3sError)]
    assert {kind.__name__ for kind in kinds} <= set(nornir_k3s.__all__)
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or "")


def test_exit_codes_are_the_documented_ones() -> None:
    codes = {
        kind.exit_code for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.K3sError)
    }
    assert codes == {1, 2, 4, 130}
