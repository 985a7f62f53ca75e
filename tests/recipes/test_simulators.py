import pytest

from isocline._core.errors import InvalidInput
from isocline.datasets.simulators import CombinedEquation1D
from isocline.recipes.simulators import SIMULATORS, describe, simulator


@pytest.mark.parametrize("name", SIMULATORS)
def test_every_simulator_describes_itself(name: str) -> None:
    text = describe(name)
    assert text.startswith(name)
    assert " = 0\n" in text
    assert "settings resolution" in text or "resolution=" in text


def test_settings_are_read_as_their_type() -> None:
    made = simulator("ce1d", resolution=40, settings=["experiment=E2", "forced=false", "cfl=0.5"])
    assert isinstance(made, CombinedEquation1D)
    assert (made.resolution, made.experiment, made.forced, made.cfl) == (40, "E2", False, 0.5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("experiment", "written name=value"),
        ("speed=3", "has no setting speed; it has experiment"),
        ("cfl=fast", "cfl is a float"),
        ("forced=1", "forced is a bool"),
    ],
)
def test_wrong_settings_are_named(setting: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        simulator("ce1d", settings=[setting])
