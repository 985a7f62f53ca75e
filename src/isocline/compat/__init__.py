"""Look-alikes for people who move here.

torchdiffeq's `odeint`, `odeint_adjoint` and `odeint_event`; torchsde's `sdeint` and `sdeint_adjoint`; torchcde's `cdeint`.
"""

from isocline.compat.cdeint import cdeint
from isocline.compat.odeint import odeint
from isocline.compat.odeint_adjoint import odeint_adjoint
from isocline.compat.odeint_event import odeint_event
from isocline.compat.sdeint import sdeint, sdeint_adjoint

__all__ = ["cdeint", "odeint", "odeint_adjoint", "odeint_event", "sdeint", "sdeint_adjoint"]
