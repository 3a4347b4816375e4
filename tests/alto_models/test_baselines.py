import numpy as np

from alto_models.baselines import best_constant_mask, largest_object, random_object


def test_constant_mask_of_equal_masks_is_that_mask() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    assert (best_constant_mask(np.stack([mask] * 4)) == mask).all()


def test_constant_mask_is_at_least_as_good_as_any_threshold_of_the_mean() -> None:
    masks = np.random.default_rng(0).random((20, 6, 6)) < np.linspace(0.05, 0.6, 36).reshape(6, 6)

    def mean_iou(constant: np.ndarray) -> float:
        return float(np.mean([(constant & mask).sum() / (constant | mask).sum() for mask in masks]))

    found = mean_iou(best_constant_mask(masks))
    mean = masks.mean(0)
    assert all(found >= mean_iou(mean >= level) - 1e-6 for level in np.unique(mean))
    assert found >= mean_iou(mean >= 0.5)


def test_constant_mask_of_no_masks_is_empty() -> None:
    assert not best_constant_mask(np.zeros((0, 4, 4), bool)).any()


def test_largest_object_is_the_first_of_equals() -> None:
    assert largest_object([3, 9, 9, 1]) == 1


def test_random_object_reaches_every_object_equally_often() -> None:
    generator = np.random.default_rng(0)
    counts = np.bincount([random_object(4, generator) for _ in range(4000)], minlength=4)
    assert (abs(counts - 1000) < 120).all()
