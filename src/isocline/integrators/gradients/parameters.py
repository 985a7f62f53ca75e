"""Which tensors a solution depends on: the first state, the arguments, and what vector fields see without being given it."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, require
from isocline.integrators.terms import Each

Parameters = Sequence[Tensor] | nn.Module | None
LONGEST = 1000
FOREIGN = ("torch", "numpy", "scipy", "builtins")


def tensors_of(args: Any) -> list[Tensor]:
    """Return the tensors in arguments that require a gradient; rows of `Each` among them."""
    leaves = (x.rows if isinstance(x, Each) else x for x in pytree.tree_leaves(args))
    return [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]


def with_tensors(args: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the arguments with other tensors in the places that `tensors_of` lists."""
    fresh = iter(tensors)

    def replaced(leaf: Any) -> Any:
        if isinstance(leaf, Each):
            return Each(next(fresh)) if leaf.rows.requires_grad else leaf
        return next(fresh) if isinstance(leaf, Tensor) and leaf.requires_grad else leaf

    return pytree.tree_map(replaced, args)


def reached(*things: Any) -> list[Tensor]:
    """Return the tensors that require a gradient and that functions can see, each once.

    Searched are parameters and attributes of modules, what functions close over, their defaults and the globals they
    name, the parts of `functools.partial`, the objects of bound methods, callable objects, data classes and
    containers of at most 1000 entries.

    Examples:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> [tuple(x.shape) for x in reached(lambda t, y: weight * y)]
        [(2,)]
    """
    found: dict[int, Tensor] = {}
    seen: dict[int, Any] = {}  # holds what it has seen, so that no identity is used twice
    waiting = list(things)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, Tensor):
            if thing.requires_grad:
                found[id(thing)] = thing
        else:
            waiting.extend(_parts(thing))
    return list(reversed(found.values()))


def seen(functions: Sequence[Any], args: Any, parameters: Parameters) -> list[Tensor]:
    """Return the tensors that functions, and modules among their arguments, see; those that are named, where any are."""
    if parameters is not None:
        named = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
        return [x for x in named if x.requires_grad]
    others = [x for x in pytree.tree_leaves(args) if not isinstance(x, (Tensor, Each))]
    found = reached(*functions, *others)
    check_apart(found)
    return found


def _parts(thing: Any) -> Iterable[Any]:
    """Return what lies one level below."""
    if isinstance(thing, nn.Module):
        return [*thing.parameters(), *(value for module in thing.modules() for value in _public(module))]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        own = thing.__self__
        return [thing.__func__, own if isinstance(own, nn.Module) else list(getattr(own, "__dict__", {}).values())]
    if isinstance(thing, types.FunctionType):
        return [] if _foreign(thing) else _of_function(thing)
    if isinstance(thing, Each):
        return [thing.rows]
    if isinstance(thing, dict):
        return thing.values() if len(thing) <= LONGEST else []
    if isinstance(thing, (list, tuple, set, frozenset)):
        return thing if len(thing) <= LONGEST else []
    whole = not isinstance(thing, (type, types.ModuleType)) and (callable(thing) or dataclasses.is_dataclass(thing))
    return (
        [*getattr(thing, "__dict__", {}).values(), type(thing).__call__] if whole and not _foreign(type(thing)) else []
    )


def _public(module: nn.Module) -> Iterator[Any]:
    return (value for name, value in vars(module).items() if not name.startswith("_") and name != "training")


def _foreign(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] in FOREIGN


def _of_function(function: types.FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    named = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    inner = [function.__wrapped__] if hasattr(function, "__wrapped__") else []
    return [*cells, *named, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *inner]


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is bound later
        return False


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(x) for x in code.co_consts if isinstance(x, types.CodeType))
    return set(code.co_names).union(*inner)


def ends_of(starts: Iterable[Tensor], stops: Sequence[Tensor]) -> list[Tensor]:
    """Return the leaves of a graph, other than `stops`, that lie behind `starts`; the search does not go on behind `stops`."""
    barred = {x.grad_fn for x in stops if x.grad_fn is not None}
    known = {id(x) for x in stops}
    waiting = [x.grad_fn for x in starts if x.grad_fn is not None]
    seen, leaves = set(barred), []
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            leaves.append(variable)
        waiting.extend(parent for parent, _ in node.next_functions if parent is not None)
    return leaves


def check_apart(tensors: Sequence[Tensor]) -> None:
    """Raise where one of the tensors is computed from another: its gradient would be counted twice."""
    for x in tensors:
        if x.grad_fn is not None:
            behind = {id(leaf) for leaf in ends_of([x], [])}
            twice = any(id(other) in behind for other in tensors if other is not x)
            text = f"the vector field closes over a tensor of shape {tuple(x.shape)} and over what it was computed from"
            require(not twice, f"{text}; pass the computed one in args=")


def refuse_hidden(leaves: Sequence[Tensor], mode: str) -> None:
    """Raise where a graph has leaves that were not found beforehand."""
    if leaves:
        shapes = ", ".join(str(tuple(x.shape)) for x in leaves[:3])
        raise InvalidInput(
            f"{mode}: the equation uses a tensor of shape {shapes} that requires a gradient and was not found; "
            f"pass it in args=, name it in {mode}(parameters=[...]), or use Direct()"
        )
