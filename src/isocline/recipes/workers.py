"""How the entries of a round are run: one after the other, or spread over processes by Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from isocline._core.errors import ExtraMissing, require

T = TypeVar("T")


class Mapping(Protocol):
    """Calls a function on each tuple of arguments and yields the results in their order."""

    def __call__(self, function: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Yield ``function(*job)`` for each job."""


def serially(function: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """Yield ``function(*job)`` for each job, each when it is asked for.

    >>> list(serially(max, [(1, 2), (4, 3)]))
    [2, 4]
    """
    for job in jobs:
        yield function(*job)


def on_ray(processes: int) -> Mapping:
    """Return a mapping over Ray processes on this machine; results are those of `serially`, in the same order.

    Each process runs with one thread. Limits of time are those at the moment a job is handed out, so with a limit the results
    may differ from a serial run.

    Args:
        processes: how many at once.

    Raises:
        ExtraMissing: Ray is not installed.
    """
    require(processes >= 1, f"a search needs at least 1 process, got {processes}")
    try:
        import ray
    except ImportError as error:
        raise ExtraMissing("spreading a search over processes needs Ray: pip install 'isocline[ray]'") from error

    def spread(function: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        if not ray.is_initialized():
            ray.init(num_cpus=processes, include_dashboard=False, log_to_driver=False, configure_logging=False)
        remote = ray.remote(num_cpus=1)(_alone)
        yield from ray.get([remote.remote(function, job) for job in jobs])

    return spread


def _alone(function: Callable[..., T], job: tuple[Any, ...]) -> T:
    import torch

    torch.set_num_threads(1)
    return function(*job)
