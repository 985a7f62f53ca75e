"""Integrators: how time goes by. One loop; terms, methods, controllers, gradients and requests are exchangeable."""

from __future__ import annotations

from isocline.integrators.controllers.clip import Clip
from isocline.integrators.controllers.constant import Constant, Steps
from isocline.integrators.controllers.pid import PID, max_norm, rms_norm
from isocline.integrators.events import Event
from isocline.integrators.gradients.backsolve import Backsolve
from isocline.integrators.gradients.checkpointed import Checkpointed
from isocline.integrators.gradients.direct import Direct, Gradient
from isocline.integrators.gradients.implicit import Implicit, Krylov
from isocline.integrators.gradients.reversible import ReversibleAdjoint
from isocline.integrators.hamiltonian import Separable
from isocline.integrators.integrate import integrate
from isocline.integrators.methods.adams import AdamsBashforth, AdamsBashforthMoulton
from isocline.integrators.methods.bosh3 import Bosh3
from isocline.integrators.methods.cash_karp import CashKarp
from isocline.integrators.methods.dopri5 import Dopri5
from isocline.integrators.methods.dopri8 import Dopri8
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.etdrk import (
    ETDRK1,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    ExponentialRungeKutta,
    HochbruckOstermann4,
    Krogstad4,
)
from isocline.integrators.methods.euler import Euler
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.fehlberg45 import Fehlberg45
from isocline.integrators.methods.heun import Heun
from isocline.integrators.methods.imex import Additive
from isocline.integrators.methods.implicit_euler import ImplicitEuler
from isocline.integrators.methods.kencarp3 import KenCarp3
from isocline.integrators.methods.kencarp4 import KenCarp4
from isocline.integrators.methods.kencarp5 import KenCarp5
from isocline.integrators.methods.kvaerno3 import Kvaerno3
from isocline.integrators.methods.kvaerno4 import Kvaerno4
from isocline.integrators.methods.kvaerno5 import Kvaerno5
from isocline.integrators.methods.leapfrog import Leapfrog
from isocline.integrators.methods.midpoint import Midpoint
from isocline.integrators.methods.ralston import Ralston
from isocline.integrators.methods.reversible import Reversible
from isocline.integrators.methods.reversible_heun import ReversibleHeun
from isocline.integrators.methods.rk4 import RK4
from isocline.integrators.methods.rk38 import RK38
from isocline.integrators.methods.rodas3 import Rodas3
from isocline.integrators.methods.rodas4 import Rodas4
from isocline.integrators.methods.rodas5p import Rodas5P
from isocline.integrators.methods.rosenbrock import Rosenbrock
from isocline.integrators.methods.rosenbrock23 import Rosenbrock23
from isocline.integrators.methods.semi_implicit_euler import SemiImplicitEuler
from isocline.integrators.methods.splitting import Splitting
from isocline.integrators.methods.ssprk3 import SSPRK3
from isocline.integrators.methods.tableau import Tableau
from isocline.integrators.methods.trapezoid import Trapezoid
from isocline.integrators.methods.trbdf2 import TRBDF2
from isocline.integrators.methods.tsit5 import Tsit5
from isocline.integrators.methods.vern7 import Vern7
from isocline.integrators.methods.yoshida import Yoshida4, Yoshida6
from isocline.integrators.picard import PicardSolution, picard
from isocline.integrators.save import SaveAt
from isocline.integrators.solution import Reason, Solution, Stats, Status, StepRecord
from isocline.integrators.solvers.chord import Chord
from isocline.integrators.solvers.newton_krylov import NewtonKrylov
from isocline.integrators.split import Split
from isocline.integrators.steady import Anderson, Newton, Relax, SteadyState, steady_state
from isocline.integrators.terms import ODE, Each, Semilinear

__all__ = [
    "ESDIRK",
    "ETDRK1",
    "ETDRK2",
    "ETDRK3",
    "ETDRK4",
    "ODE",
    "PID",
    "RK4",
    "RK38",
    "SSPRK3",
    "TRBDF2",
    "AdamsBashforth",
    "AdamsBashforthMoulton",
    "Additive",
    "Anderson",
    "Backsolve",
    "Bosh3",
    "CashKarp",
    "Checkpointed",
    "Chord",
    "Clip",
    "Constant",
    "Direct",
    "Dopri5",
    "Dopri8",
    "Each",
    "Euler",
    "Event",
    "ExplicitRungeKutta",
    "ExponentialRungeKutta",
    "Fehlberg45",
    "Gradient",
    "Heun",
    "HochbruckOstermann4",
    "Implicit",
    "ImplicitEuler",
    "KenCarp3",
    "KenCarp4",
    "KenCarp5",
    "Krogstad4",
    "Krylov",
    "Kvaerno3",
    "Kvaerno4",
    "Kvaerno5",
    "Leapfrog",
    "Midpoint",
    "Newton",
    "NewtonKrylov",
    "PicardSolution",
    "Ralston",
    "Reason",
    "Relax",
    "Reversible",
    "ReversibleAdjoint",
    "ReversibleHeun",
    "Rodas3",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "SaveAt",
    "SemiImplicitEuler",
    "Semilinear",
    "Separable",
    "Solution",
    "Split",
    "Splitting",
    "Stats",
    "Status",
    "SteadyState",
    "StepRecord",
    "Steps",
    "Tableau",
    "Trapezoid",
    "Tsit5",
    "Vern7",
    "Yoshida4",
    "Yoshida6",
    "integrate",
    "max_norm",
    "picard",
    "rms_norm",
    "steady_state",
]
