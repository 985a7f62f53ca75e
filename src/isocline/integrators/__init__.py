"""Integrators: how time goes by. One loop; terms, methods, controllers, gradients and requests are exchangeable."""

from __future__ import annotations

from isocline.integrators.brownian.path import BrownianPath, Increment
from isocline.integrators.cde import CDE
from isocline.integrators.controllers.clip import Clip
from isocline.integrators.controllers.constant import Constant, Steps
from isocline.integrators.controllers.pid import PID, max_norm, rms_norm
from isocline.integrators.controls.base import ControlPath
from isocline.integrators.controls.cubic import NaturalCubicPath
from isocline.integrators.controls.hermite import HermitePath
from isocline.integrators.controls.linear import LinearPath
from isocline.integrators.controls.missing import with_intensity, with_time
from isocline.integrators.controls.rectilinear import RectilinearPath
from isocline.integrators.events import Event
from isocline.integrators.gradients.backsolve import Backsolve
from isocline.integrators.gradients.checkpointed import Checkpointed
from isocline.integrators.gradients.direct import Direct, Gradient
from isocline.integrators.gradients.implicit import Implicit, Krylov
from isocline.integrators.gradients.reversible import ReversibleAdjoint
from isocline.integrators.hamiltonian import Separable
from isocline.integrators.integrate import integrate
from isocline.integrators.log_ode import LogODE, LogSignatures
from isocline.integrators.logsignature import logsignature, lyndon_words, signature
from isocline.integrators.methods.adams import AdamsBashforth, AdamsBashforthMoulton
from isocline.integrators.methods.additive import AdditiveRungeKutta
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
from isocline.integrators.methods.euler_maruyama import EulerMaruyama
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
from isocline.integrators.methods.milstein import Milstein
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
from isocline.integrators.methods.shark import ShARK
from isocline.integrators.methods.spark import SPaRK
from isocline.integrators.methods.splitting import Splitting
from isocline.integrators.methods.sra1 import SRA1
from isocline.integrators.methods.ssprk3 import SSPRK3
from isocline.integrators.methods.stochastic import StochasticRungeKutta, StochasticTableau
from isocline.integrators.methods.stochastic_heun import StochasticHeun
from isocline.integrators.methods.tableau import Tableau
from isocline.integrators.methods.trapezoid import Trapezoid
from isocline.integrators.methods.trbdf2 import TRBDF2
from isocline.integrators.methods.tsit5 import Tsit5
from isocline.integrators.methods.vern7 import Vern7
from isocline.integrators.methods.yoshida import Yoshida4, Yoshida6
from isocline.integrators.picard import PicardSolution, picard
from isocline.integrators.save import SaveAt
from isocline.integrators.sde import SDE
from isocline.integrators.solution import Reason, Solution, Stats, Status, StepRecord
from isocline.integrators.solvers.chord import Chord
from isocline.integrators.solvers.newton_krylov import NewtonKrylov
from isocline.integrators.split import Split
from isocline.integrators.steady import Anderson, Newton, Relax, SteadyState, steady_state
from isocline.integrators.terms import ODE, Each, Semilinear

__all__ = [
    "CDE",
    "ESDIRK",
    "ETDRK1",
    "ETDRK2",
    "ETDRK3",
    "ETDRK4",
    "ODE",
    "PID",
    "RK4",
    "RK38",
    "SDE",
    "SRA1",
    "SSPRK3",
    "TRBDF2",
    "AdamsBashforth",
    "AdamsBashforthMoulton",
    "Additive",
    "AdditiveRungeKutta",
    "Anderson",
    "Backsolve",
    "Bosh3",
    "BrownianPath",
    "CashKarp",
    "Checkpointed",
    "Chord",
    "Clip",
    "Constant",
    "ControlPath",
    "Direct",
    "Dopri5",
    "Dopri8",
    "Each",
    "Euler",
    "EulerMaruyama",
    "Event",
    "ExplicitRungeKutta",
    "ExponentialRungeKutta",
    "Fehlberg45",
    "Gradient",
    "HermitePath",
    "Heun",
    "HochbruckOstermann4",
    "Implicit",
    "ImplicitEuler",
    "Increment",
    "KenCarp3",
    "KenCarp4",
    "KenCarp5",
    "Krogstad4",
    "Krylov",
    "Kvaerno3",
    "Kvaerno4",
    "Kvaerno5",
    "Leapfrog",
    "LinearPath",
    "LogODE",
    "LogSignatures",
    "Midpoint",
    "Milstein",
    "NaturalCubicPath",
    "Newton",
    "NewtonKrylov",
    "PicardSolution",
    "Ralston",
    "Reason",
    "RectilinearPath",
    "Relax",
    "Reversible",
    "ReversibleAdjoint",
    "ReversibleHeun",
    "Rodas3",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "SPaRK",
    "SaveAt",
    "SemiImplicitEuler",
    "Semilinear",
    "Separable",
    "ShARK",
    "Solution",
    "Split",
    "Splitting",
    "Stats",
    "Status",
    "SteadyState",
    "StepRecord",
    "Steps",
    "StochasticHeun",
    "StochasticRungeKutta",
    "StochasticTableau",
    "Tableau",
    "Trapezoid",
    "Tsit5",
    "Vern7",
    "Yoshida4",
    "Yoshida6",
    "integrate",
    "logsignature",
    "lyndon_words",
    "max_norm",
    "picard",
    "rms_norm",
    "signature",
    "steady_state",
    "with_intensity",
    "with_time",
]
