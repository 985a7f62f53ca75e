r"""Taylor coefficients of functions of one variable, ``f^(k)(x) / k!`` for k = 0..K.

Each follows from the differential equation of its function: with ``y(s) = f(x + s) = sum_k y_k s^k``,

    tanh       y' = 1 - y^2             (k+1) y_{k+1} = [k = 0] - sum_i y_i y_{k-i}
    sigmoid    y' = y - y^2             (k+1) y_{k+1} = y_k - sum_i y_i y_{k-i}
    softplus   y' = sigmoid             (k+1) y_{k+1} = sigmoid_k
    normal density  y' = -x y           (k+1) y_{k+1} = -(x y_k + y_{k-1})
    x^n        x y' = n y               (k+1) x y_{k+1} = (n - k) y_k
    tan        y' = 1 + y^2             (k+1) y_{k+1} = [k = 0] + sum_i y_i y_{k-i}
    atan       (1 + x^2) y' = 1         (1 + x^2) z_k = [k = 0] - 2 x z_{k-1} - z_{k-2},   (k+1) y_{k+1} = z_k

(Griewank and Walther, Evaluating Derivatives, 2008, chapter 13). A function of one variable is expanded once for each point,
however many directions there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require


def _convolved(a: list[Tensor], b: list[Tensor], k: int) -> Tensor:
    total = a[0] * b[k]
    for i in range(1, k + 1):
        total = total + a[i] * b[k - i]
    return total


def _squared(y: list[Tensor], k: int) -> Tensor:
    """Return ``sum_i y_i y_{k-i}``, each pair once."""
    total = y[0] * y[0] if k == 0 else 2 * y[0] * y[k]
    for i in range(1, (k + 1) // 2):
        total = total + 2 * y[i] * y[k - i]
    return total + y[k // 2] * y[k // 2] if k and k % 2 == 0 else total


def tanh(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of tanh."""
    y = [torch.tanh(x)]
    if order >= 1:
        y.append(1 - y[0] * y[0])
    if order >= 2:
        y.append(-y[0] * y[1])
    for k in range(2, order):
        y.append(_squared(y, k) / -(k + 1))
    return y


def sigmoid(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the logistic function."""
    y = [torch.sigmoid(x)]
    for k in range(order):
        y.append((y[k] - _squared(y, k)) / (k + 1))
    return y


def exp(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of exp."""
    y = torch.exp(x)
    return [y / math.factorial(k) if k > 1 else y for k in range(order + 1)]


def sin(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of sin."""
    return _circular(torch.sin(x), torch.cos(x), order)


def cos(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of cos."""
    return _circular(torch.cos(x), -torch.sin(x), order)


def _circular(value: Tensor, slope: Tensor, order: int) -> list[Tensor]:
    signs = (1, 1, -1, -1)
    return [
        (value, slope)[k % 2] * (signs[k % 4] / math.factorial(k)) if k > 1 else (value, slope)[k]
        for k in range(order + 1)
    ]


def sinh(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the hyperbolic sine."""
    return _alternating(torch.sinh(x), torch.cosh(x), order)


def cosh(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the hyperbolic cosine."""
    return _alternating(torch.cosh(x), torch.sinh(x), order)


def _alternating(value: Tensor, slope: Tensor, order: int) -> list[Tensor]:
    return [(value, slope)[k % 2] / math.factorial(k) for k in range(order + 1)]


def tan(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the tangent."""
    y = [torch.tan(x)]
    for k in range(order):
        y.append((_squared(y, k) + (k == 0)) / (k + 1))
    return y


def atan(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the inverse tangent."""
    scale = 1 / (1 + x * x)
    slopes = [scale, -2 * x * scale * scale]
    for k in range(2, order):
        slopes.append(-scale * (2 * x * slopes[k - 1] + slopes[k - 2]))
    return [torch.atan(x), *(z / (k + 1) for k, z in enumerate(slopes[:order]))]


def softplus(x: Tensor, order: int, beta: float = 1.0, threshold: float = 20.0) -> list[Tensor]:
    """Return the coefficients of softplus; torch's threshold changes only how its value is rounded."""
    slopes = sigmoid(beta * x, max(order - 1, 0))
    value = torch.nn.functional.softplus(x, beta, threshold)
    return [value, *(s * (beta**k / (k + 1)) for k, s in enumerate(slopes[:order]))]


def silu(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of ``x sigmoid(x)``."""
    return _times_x(x, sigmoid(x, order))


def gelu(x: Tensor, order: int, approximate: str = "none") -> list[Tensor]:
    """Return the coefficients of ``x Phi(x)``, or of torch's tanh approximation."""
    if approximate == "tanh":
        a, b = math.sqrt(2 / math.pi), 0.044715
        inner = [a * (x + b * x**3), a * (1 + 3 * b * x * x), 3 * a * b * x, torch.full_like(x, a * b)]
        gate = composed(tanh(inner[0], order), inner, order)
        return _times_x(x, [(gate[0] + 1) / 2, *(g / 2 for g in gate[1:])])
    return _times_x(x, _normal(x, order))


def _normal(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the normal distribution function."""
    value = torch.special.ndtr(x)
    density = [torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)]
    for k in range(order - 1):
        density.append(-(x * density[k] + (density[k - 1] if k else 0)) / (k + 1))
    return [value, *(p / (k + 1) for k, p in enumerate(density[:order]))]


def erf(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the error function, ``2 Phi(sqrt(2) x) - 1``."""
    scaled = _normal(math.sqrt(2) * x, order)
    return [torch.erf(x), *(2 * math.sqrt(2) ** (k + 1) * p for k, p in enumerate(scaled[1:]))]


def power(x: Tensor, order: int, exponent: float) -> list[Tensor]:
    """Return the coefficients of ``x**exponent``; a whole exponent is right at zero too."""
    require(
        isinstance(exponent, (int, float)), "Taylor mode takes powers with a number as exponent; use exp(n * log(x))"
    )
    coefficients, factor = [torch.pow(x, exponent)], 1.0
    for k in range(1, order + 1):
        factor *= (exponent - k + 1) / k
        coefficients.append(factor * torch.pow(x, exponent - k) if factor else torch.zeros_like(x))
    return coefficients


def log(x: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of the natural logarithm."""
    inverse = 1 / x
    return [torch.log(x), *(inverse**k * ((-1) ** (k + 1) / k) for k in range(1, order + 1))]


def _times_x(x: Tensor, y: list[Tensor]) -> list[Tensor]:
    return [x * y[0], *(x * y[k] + y[k - 1] for k in range(1, len(y)))]


def composed(outer: list[Tensor], inner: list[Tensor], order: int) -> list[Tensor]:
    """Return the coefficients of f(g(s)) from those of f at g(0) and those of g, by Horner's rule."""
    zero = torch.zeros_like(outer[0])
    inner = [zero, *inner[1 : order + 1], *[zero] * (order + 1 - len(inner))]
    total = [outer[order], *[zero] * order]
    for k in reversed(range(order)):
        total = [_convolved(total, inner, j) for j in range(order + 1)]
        total[0] = total[0] + outer[k]
    return total


def kinked(name: str, value: Callable[..., Tensor], slope: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    """Return the rule of a piecewise linear function: its first derivative; a second one does not exist."""

    def rule(x: Tensor, order: int, **kwargs: float) -> list[Tensor]:
        if order > 1:
            raise InvalidInput(
                f"{name} has no derivative of order {order}: take a smooth activation such as tanh, or "
                "backend=nested_autograd, which gives the zeros that hold almost everywhere"
            )
        return [value(x, **kwargs), slope(x, **kwargs)][: order + 1]

    return rule


def _leaky(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    return torch.where(x > 0, 1.0, negative_slope).to(x.dtype)


RULES: dict[str, Callable[..., list[Tensor]]] = {
    "tanh": tanh,
    "sigmoid": sigmoid,
    "exp": exp,
    "sin": sin,
    "cos": cos,
    "sinh": sinh,
    "cosh": cosh,
    "tan": tan,
    "atan": atan,
    "arctan": atan,
    "expm1": lambda x, order: [torch.expm1(x), *exp(x, order)[1:]],
    "log1p": lambda x, order: [torch.log1p(x), *log(1 + x, order)[1:]],
    "softplus": softplus,
    "silu": silu,
    "gelu": gelu,
    "erf": erf,
    "pow": power,
    "square": lambda x, order: power(x, order, 2),
    "sqrt": lambda x, order: power(x, order, 0.5),
    "rsqrt": lambda x, order: power(x, order, -0.5),
    "reciprocal": lambda x, order: power(x, order, -1),
    "log": log,
    "relu": kinked("relu", torch.relu, lambda x: (x > 0).to(x.dtype)),
    "leaky_relu": kinked("leaky_relu", torch.nn.functional.leaky_relu, _leaky),
    "abs": kinked("abs", torch.abs, torch.sign),
}
