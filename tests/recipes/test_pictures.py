import base64

import torch

from isocline.recipes import pictures


def test_tiles_are_placed_row_by_row():
    images = torch.linspace(-1, 1, 5).reshape(5, 1, 1, 1).expand(5, 1, 2, 3)
    canvas = pictures.tile(images, columns=3, gap=1)
    assert canvas.shape == (5, 11)
    assert [canvas[0, c].item() for c in (0, 4, 8)] == [0.0, 0.25, 0.5]
    assert [canvas[3, c].item() for c in (0, 4, 8)] == [0.75, 1.0, 1.0]


def test_an_inline_picture_is_the_png_itself():
    picture = pictures.side_by_side([("a", torch.zeros(4, 1, 2, 2))], columns=2)
    element = pictures.inline(picture, "four")
    data = base64.b64decode(element.split("base64,")[1].split('"')[0])
    assert data.startswith(b"\x89PNG")
    assert 'alt="four"' in element
