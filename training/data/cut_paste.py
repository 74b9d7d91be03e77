"""Makes anomalous images from normal images: pastes pieces of other images, plain colours and lines.

A network that is trained on such images also finds other, real defects: CutPaste (C.-L. Li et al., CVPR 2021), DRAEM
(V. Zavrtanik et al., ICCV 2021), NSA (H. Schlüter et al., ECCV 2022). Shapes, sizes, positions, colours and opacities
are drawn at random, so that the pieces have nothing in common except that they do not fit the image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

VISIBLE = 0.08  # smallest change of a pixel in 0..1 that counts: about the noise of a camera
CLEAN = 0.3  # share of images without a pasted piece


def cut_paste(images: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in 0..1 [N, C, H, W] with a pasted piece in most images, and where it is visible: 0 or 1 [N, H, W].

    A piece is an ellipse, a rectangle or a line, from a pixel to half of the image in size. It is filled with pixels of
    another image or of another place in this image, with a grey or a colour, or with the background; it is opaque or
    half transparent.
    """
    shapes = _shapes(images)
    twice = torch.rand(len(images), 1, 1, device=images.device) < 0.3
    shapes = shapes | (twice & _shapes(images))
    shapes &= torch.rand(len(images), 1, 1, device=images.device) > CLEAN
    opacity = 0.35 + 0.65 * torch.rand(len(images), 1, 1, 1, device=images.device).sqrt()
    mixed = torch.lerp(images, _fillings(images), opacity)
    result = torch.where(shapes[:, None], mixed, images)
    changed = (result - images).abs().amax(dim=1) > VISIBLE
    return result, changed.float()


def _shapes(images: Tensor) -> Tensor:
    """A random shape for each image, bool [N, H, W]."""
    n, _, height, width = images.shape
    device, side = images.device, max(height, width)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, device=device)

    row, column = _centres(images)
    y = torch.arange(height, device=device)[:, None] - row
    x = torch.arange(width, device=device)[None, :] - column
    angle = draw(0, math.pi)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    # Half lengths, from half a pixel to a quarter of the side; small ones are more frequent.
    least = 0.7 / side
    long, short = ((least * (0.25 / least) ** draw(0, 1)) * side for _ in range(2))
    kind = torch.rand(n, 1, 1, device=device)
    line = kind < 0.35
    # Lines: longer, one to three pixels wide, and some of them bent.
    long = torch.where(line, draw(0.08, 0.35) * side, long)
    short = torch.where(line, draw(0.5, 1.0 + side / 56), short)
    across = torch.where(line, across + draw(-0.03, 0.03) * (along.square() - long.square() / 2), across)
    ellipse = (along / long).square() + (across / short).square() <= 1
    rectangle = (along.abs() <= long) & (across.abs() <= short)
    return torch.where(kind > 0.7, ellipse, rectangle)


def _centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of shapes, each [N, 1, 1]: half of them anywhere, half of them preferably not on the background.

    These take, of four random positions, the one whose colour is furthest from the median, because background pasted on
    background changes nothing.
    """
    n, _, height, width = images.shape
    device = images.device
    places = torch.randint(height * width, (n, 4), device=device)
    apart = (images - images.flatten(2).median(dim=2).values[:, :, None, None]).abs().sum(dim=1).flatten(1)
    chosen = apart.gather(1, places).argmax(dim=1, keepdim=True) * (torch.rand(n, 1, device=device) < 0.5)
    place = places.gather(1, chosen)[:, :, None]
    return (place // width).float(), (place % width).float()


def _fillings(images: Tensor) -> Tensor:
    """The fillings, in the shape of the images: pieces of images, colours, the background."""
    n, channels = images.shape[:2]
    device = images.device
    other = images[torch.randperm(n, device=device)]
    other = torch.where(torch.rand(n, 1, 1, 1, device=device) < 0.3, images, other)
    elsewhere = _rolled(other)
    flat = images.flatten(2)
    picked = torch.randint(flat.shape[2], (n, 1, 1), device=device).expand(-1, channels, -1)
    own = flat.gather(2, picked)[..., None]  # a colour from the image
    plain = torch.rand(n, channels, 1, 1, device=device)
    extreme = (torch.rand(n, 1, 1, 1, device=device) < 0.5).float()
    kind = torch.rand(n, 1, 1, 1, device=device)
    colour = torch.where(kind < 0.45, own, torch.where(kind < 0.6, plain, extreme.expand_as(plain)))
    return torch.where(kind > 0.75, elsewhere, colour.expand_as(images))


def _rolled(images: Tensor) -> Tensor:
    """Each image shifted cyclically by its own draw, and rotated by one of four quarters if it is square."""
    n, channels, height, width = images.shape
    rows = (torch.arange(height, device=images.device) + torch.randint(height, (n, 1), device=images.device)) % height
    columns = (torch.arange(width, device=images.device) + torch.randint(width, (n, 1), device=images.device)) % width
    rows_at = rows[:, None, :, None].expand(-1, channels, -1, width)
    shifted = images.gather(2, rows_at).gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
    return shifted if height != width else shifted.rot90(int(torch.randint(4, ())), (2, 3))
