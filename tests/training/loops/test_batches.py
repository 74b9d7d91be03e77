import numpy as np
import torch

from training.data import Split
from training.loops.batches import Images, batches, step_seed, steps_per_epoch

IMAGES = Images(
    Split(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), np.arange(100, dtype=np.int64)), torch.device("cpu")
)


def labels(epoch: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> list[list[int]]:
    drawn = batches(IMAGES, 16, seed=0, epoch=epoch, start=start, rank=rank, world=world)
    return [batch.tolist() for _, batch in drawn]


def test_an_epoch_has_each_image_at_most_once_in_an_order_of_its_own() -> None:
    epochs = [[number for batch in labels(epoch) for number in batch] for epoch in (0, 1)]
    assert [len(set(epoch)) for epoch in epochs] == [96, 96]
    assert epochs[0] != epochs[1]
    assert labels(0) == labels(0)


def test_a_later_start_gives_the_rest_of_the_same_epoch() -> None:
    assert labels(start=4) == labels()[4:]


def test_processes_share_each_batch() -> None:
    parts = [labels(rank=rank, world=2) for rank in (0, 1)]
    for whole, first, second in zip(labels(), *parts, strict=True):
        assert sorted(first + second) == sorted(whole)


def test_pixels_are_in_0_to_1() -> None:
    pixels, numbers = IMAGES.at(torch.tensor([0, 51]))
    assert torch.allclose(pixels.flatten(), torch.tensor([0, 0.2]))
    assert numbers.tolist() == [0, 51]


def test_few_images_are_one_batch() -> None:
    assert steps_per_epoch(5, 16) == 1
    assert steps_per_epoch(100, 16) == 6


def test_seeds_differ_by_position() -> None:
    seeds = {step_seed(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125


def test_the_order_of_an_epoch_and_the_noise_of_its_first_step_have_different_seeds() -> None:
    assert step_seed(3, 5) != step_seed(3, 5, 0, 0)
    assert len({step_seed(*(0,) * length) for length in range(1, 6)}) == 5
