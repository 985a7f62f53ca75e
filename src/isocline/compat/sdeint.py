r"""`sdeint` with torchsde's signature (Li, Wong, Chen and Duvenaud, arXiv 2001.01328), over `isocline.integrators.integrate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, nearest, require
from isocline._core.stream import Stream
from isocline.integrators import (
    PID,
    SDE,
    SRA1,
    BrownianPath,
    Checkpointed,
    Direct,
    EulerMaruyama,
    Gradient,
    Midpoint,
    Milstein,
    ReversibleAdjoint,
    ReversibleHeun,
    SaveAt,
    StochasticHeun,
    StochasticRungeKutta,
    StochasticTableau,
    integrate,
)

METHODS: dict[str, dict[str, Callable[[], Any]]] = {
    "ito": {"euler": EulerMaruyama, "milstein": Milstein, "srk": SRA1},
    "stratonovich": {
        "heun": StochasticHeun,
        "midpoint": lambda: StochasticRungeKutta(StochasticTableau.plain(Midpoint().tableau)),
        "milstein": Milstein,
        "reversible_heun": ReversibleHeun,
    },
}
NOISES: dict[str, Any] = {"additive": "additive", "diagonal": "diagonal", "scalar": "commutative", "general": "general"}
DEFAULTS = {"additive": "srk", "diagonal": "milstein", "scalar": "milstein", "general": "euler"}


def sdeint(
    sde: Any,
    y0: Tensor,
    ts: Sequence[float] | Tensor,
    bm: BrownianPath | Stream | int | None = None,
    method: str | None = None,
    dt: float = 1e-3,
    adaptive: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-4,
    names: Mapping[str, str] | None = None,
) -> Tensor:
    """Integrate ``dy = f(t, y) dt + g(t, y) dW``; gradients by backpropagation through the steps.

    Args:
        sde: has ``f(t, y)`` of shape (B, d), ``g(t, y)`` of shape (B, d) for diagonal noise and (B, d, m) otherwise, ``noise_type``
            (``"additive"``, ``"diagonal"``, ``"scalar"`` or ``"general"``) and ``sde_type`` (``"ito"`` or ``"stratonovich"``).
        y0: first states, shape (B, d).
        ts: (T,) times, strictly increasing.
        bm: a seed, a stream or a `BrownianPath`; None draws a seed from PyTorch's global generator.
        method: Ito ``"euler"``, ``"milstein"``, ``"srk"`` (additive noise); Stratonovich ``"midpoint"``, ``"heun"``,
            ``"milstein"``, ``"reversible_heun"``. By default milstein, or srk for additive and euler for general noise;
            midpoint for Stratonovich.
        dt: size of the steps, or of the first one.
        adaptive: choose steps by the error estimate of the method (heun, midpoint has none).
        rtol: tolerated relative error of adaptive steps.
        atol: tolerated absolute error of adaptive steps.
        names: other names of the methods of `sde`, such as ``{"drift": "h"}``.

    Returns:
        States, shape (T, B, d).

    Raises:
        InvalidInput: the arguments do not fit together.
        NotFinite: the integration failed; the text names the time, the cause and the way out.

    Examples:
        >>> class Growth:
        ...     noise_type, sde_type = "diagonal", "ito"
        ...     f = staticmethod(lambda t, y: 0.1 * y)
        ...     g = staticmethod(lambda t, y: 0.2 * y)
        >>> sdeint(Growth(), torch.ones(4, 1), torch.linspace(0, 1, 3), bm=0, dt=0.1).shape
        torch.Size([3, 4, 1])
    """
    return _solved(sde, y0, ts, bm, method, dt, adaptive, rtol, atol, names, Direct())


def sdeint_adjoint(
    sde: Any,
    y0: Tensor,
    ts: Sequence[float] | Tensor,
    bm: BrownianPath | Stream | int | None = None,
    method: str | None = None,
    dt: float = 1e-3,
    adaptive: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-4,
    names: Mapping[str, str] | None = None,
) -> Tensor:
    """Return the same as `sdeint`, with gradients that need little memory and are those of the steps.

    ``"reversible_heun"`` undoes its steps on the way back; every other method stores some states and makes the steps between them
    again. No backward equation is solved, so there are no ``adjoint_*`` arguments. Arguments, result and errors as for `sdeint`.

    Examples:
        >>> class Damped:
        ...     noise_type, sde_type = "additive", "stratonovich"
        ...     f = staticmethod(lambda t, y: -y)
        ...     g = staticmethod(lambda t, y: torch.ones(2, 3, 1))
        >>> y0 = torch.zeros(2, 3, requires_grad=True)
        >>> ys = sdeint_adjoint(Damped(), y0, [0.0, 0.5], bm=0, method="reversible_heun", dt=0.1)
        >>> torch.autograd.grad(ys[-1].sum(), y0)[0].shape
        torch.Size([2, 3])
    """
    gradient = ReversibleAdjoint() if method == "reversible_heun" else Checkpointed()
    return _solved(sde, y0, ts, bm, method, dt, adaptive, rtol, atol, names, gradient)


def _solved(
    sde: Any,
    y0: Tensor,
    ts: Any,
    bm: Any,
    method: str | None,
    dt: float,
    adaptive: bool,
    rtol: float,
    atol: float,
    names: Mapping[str, str] | None,
    gradient: Gradient,
) -> Tensor:
    times = torch.as_tensor(ts, dtype=torch.float64)
    require(times.ndim == 1 and len(times) >= 2, f"ts must be at least two times, got shape {tuple(times.shape)}")
    require(bool((times.diff() > 0).all()), "ts must be strictly increasing")
    require(y0.ndim == 2, f"y0 must have shape (B, d), got {tuple(y0.shape)}")
    terms = _terms(sde, y0, times, bm, dict(names or {}))
    found = integrate(
        terms,
        y0,
        float(times[0]),
        float(times[-1]),
        method=_method(terms, method),
        controller=PID(rtol, atol, p=0.1, i=0.3) if adaptive else None,
        dt0=dt,
        max_steps=max(4096, 2 * int((times[-1] - times[0]) / dt) + 16),
        saveat=SaveAt(ts=times[1:]),
        gradient=gradient,
    )
    return torch.cat([y0[None], found.check().ys])


def _terms(sde: Any, y0: Tensor, times: Tensor, bm: Any, names: dict[str, str]) -> SDE:
    kind, calculus = getattr(sde, "noise_type", None), getattr(sde, "sde_type", None)
    require(kind in NOISES, f"sde.noise_type is one of {', '.join(NOISES)}; got {kind!r}")
    require(calculus in METHODS, f'sde.sde_type is "ito" or "stratonovich", got {calculus!r}')
    known = {"drift": "f", "diffusion": "g"}
    strange = sorted(set(names) - set(known))
    if strange:
        raise InvalidInput(f"names has no entry {strange[0]!r} here: {nearest(strange[0], known)}")
    drift, diffusion = (getattr(sde, names.get(role, default), None) for role, default in known.items())
    if drift is None or diffusion is None:
        missing = names.get("drift", "f") if drift is None else names.get("diffusion", "g")
        raise InvalidInput(f"the sde has no method {missing!r}; name it with names=...")
    channels = None if kind == "diagonal" else _channels(diffusion, y0, times)
    seed = int(torch.randint(2**62, ())) if bm is None else bm
    return SDE(drift, diffusion, seed, noise=NOISES[kind], calculus=calculus, channels=channels)  # type: ignore[index, arg-type]


def _channels(diffusion: Callable[..., Tensor], y0: Tensor, times: Tensor) -> int:
    with torch.no_grad():
        g = diffusion(times[0].to(y0.dtype), y0)
    require(g.ndim == 3, f"g must have shape (B, d, m) for this noise, got {tuple(g.shape)}")
    return int(g.shape[-1])


def _method(terms: SDE, name: str | None) -> Any:
    kind = {"commutative": "scalar"}.get(terms.noise, terms.noise)
    chosen = name or (DEFAULTS[kind] if terms.calculus == "ito" else "midpoint")
    known = METHODS[terms.calculus]
    if chosen not in known:
        raise InvalidInput(f"no method {chosen!r} for {terms.calculus} SDEs: {nearest(chosen, known)}")
    if chosen == "srk" and kind != "additive":
        raise InvalidInput('"srk" is here for additive noise only: take "milstein", or "euler" for general noise')
    return known[chosen]()
