"""Contract of SA-1B masks: what is measured of each row, and what must hold.

The rules on images and masks are shared by every data set that has masks.
"""

from data_contracts.rules import (
    Absent,
    AtMost,
    Between,
    Contract,
    Convention,
    Equal,
    Readable,
    Rule,
    Unique,
)

# Columns of the checked frame, one row per mask. runs_total, smallest_run, area, box_* and
# boundary_length are measured from the runs, stored_area at the size the image is stored in (missing
# where that is its own), stated_* are the publisher's claims (missing where it makes none), *_error how
# far the two are apart, *_tolerance what its convention allows. other_split, same_image and same_mask say
# what else has the row's image or its runs, and are empty where nothing has.
MEASURED_COLUMNS: dict[str, str] = {
    "source_file": "str",
    "image_id": "str",
    "row_id": "str",
    "mask_id": "str",
    "split": "str",
    "category": "str",
    "width": "int",
    "height": "int",
    "stated_width": "int",
    "stated_height": "int",
    "pixels": "int",
    "mask_width": "int",
    "mask_height": "int",
    "runs_total": "int",
    "smallest_run": "int",
    "area": "int",
    "box_x": "int",
    "box_y": "int",
    "box_width": "int",
    "box_height": "int",
    "boundary_length": "int",
    "stored_area": "int",
    "stated_area": "float",
    "stated_left": "float",
    "stated_top": "float",
    "stated_right": "float",
    "stated_bottom": "float",
    "area_error": "float",
    "area_tolerance": "float",
    "box_error": "float",
    "box_tolerance": "float",
    "predicted_iou": "float",
    "stability_score": "float",
    "other_split": "str",
    "same_image": "str",
    "same_mask": "str",
}

FILE_RULES: tuple[Rule, ...] = (
    Readable(
        name="archive_readable",
        why="A truncated or damaged archive hides an unknown number of images.",
        blames="image",
    ),
    Readable(
        name="archive_member",
        why="A shard holds pairs of image and annotation; links and outside paths are damage or attacks.",
        blames="image",
    ),
    Readable(
        name="annotations_readable", why="Without its annotations an image teaches nothing.", blames="image"
    ),
)

IMAGE_RULES: tuple[Rule, ...] = (
    Readable(name="image_exists", why="A mask without its image cannot be trained on.", blames="image"),
    Readable(
        name="image_decodes", why="An image that fails here would stop a training run later.", blames="image"
    ),
    Readable(
        name="image_pixel_limit",
        why="A huge image, often a decompression bomb, would exhaust the memory of a worker.",
        blames="image",
    ),
    Equal(
        name="image_width_as_stated",
        column="width",
        other="stated_width",
        why="Masks refer to the stored pixels; another width means another or a resized image.",
        blames="image",
    ),
    Equal(
        name="image_height_as_stated",
        column="height",
        other="stated_height",
        why="Masks refer to the stored pixels; another height means another, resized or turned image.",
        blames="image",
    ),
    Readable(
        name="image_unique",
        why="An image that comes twice would weigh twice, and could be in two splits.",
        blames="image",
    ),
)


def unique_rows(*columns: str) -> Unique:
    """The rule that no row comes twice within these columns."""
    return Unique(
        name="row_unique",
        columns=columns,
        repeated="repeated",
        why="A row that comes twice would weigh twice, and ids are what results refer to.",
    )


ROW_RULES: tuple[Rule, ...] = (
    Readable(name="path_safe", why="A path of a data set must not leave its folder."),
    Readable(name="fields_complete", why="A row without a field of its format is not what was published."),
    Readable(name="numbers_finite", why="NaN and infinity spread into every mean they enter."),
)

MASK_RULES: tuple[Rule, ...] = (
    Readable(name="mask_readable", why="What is no segmentation has no pixels."),
    Equal(
        name="mask_width_fits_image",
        column="mask_width",
        other="width",
        why="A mask of another size would lie on the wrong pixels.",
    ),
    Equal(
        name="mask_height_fits_image",
        column="mask_height",
        other="height",
        why="A mask of another size would lie on the wrong pixels.",
    ),
    Between(name="runs_not_negative", column="smallest_run", least=0, why="A run is a number of pixels."),
    Equal(
        name="runs_fill_mask",
        column="runs_total",
        other="pixels",
        why="Runs that do not cover the mask exactly are cut off or of another image.",
    ),
    Between(name="mask_not_empty", column="area", least=1, why="An empty mask is no target."),
    Between(
        name="mask_survives_scaling",
        column="stored_area",
        least=1,
        why="Images are stored smaller than published, and at that size nothing of this mask is left.",
    ),
    Between(name="box_left_in_image", column="stated_left", least=0, why="A box outside the image is wrong."),
    Between(name="box_top_in_image", column="stated_top", least=0, why="A box outside the image is wrong."),
    AtMost(
        name="box_right_in_image",
        column="stated_right",
        limit="width",
        why="A box outside the image is wrong.",
    ),
    AtMost(
        name="box_bottom_in_image",
        column="stated_bottom",
        limit="height",
        why="A box outside the image is wrong.",
    ),
    AtMost(
        name="area_as_stated",
        column="area_error",
        limit="area_tolerance",
        why="The area of the runs is the publisher's, or the mask is not the one it measured.",
    ),
    AtMost(
        name="box_as_stated",
        column="box_error",
        limit="box_tolerance",
        why="The box of the runs is the publisher's, or the mask is not the one it measured.",
    ),
)

# SAM's IoU head is a regression and predicts a little over 1 for masks it is sure of.
QUALITY_RULES: tuple[Rule, ...] = (
    Between(
        name="predicted_iou_in_range",
        column="predicted_iou",
        least=0,
        most=1.2,
        why="Masks are chosen by it; it estimates an IoU.",
    ),
    Between(
        name="stability_score_in_range",
        column="stability_score",
        least=0,
        most=1,
        why="Masks are chosen by it; it is an IoU.",
    ),
)

SPLIT_RULES: tuple[Rule, ...] = (
    Absent(
        name="splits_share_no_image",
        column="other_split",
        why="An image for training that also measures tells nothing. It stays in the split it was first met "
        "in. RefCOCO's unc and umd splits, gRefCOCO's, and those by hash of the id promise it; RefCOCOg's "
        "google splits do not, and are not held to it.",
    ),
)

# These rows stay: the publisher lists them, and dropping one would drop real annotations with it.
REPETITIONS: tuple[Rule, ...] = (
    Absent(
        name="image_bytes_unique",
        column="same_image",
        why="The same picture under two ids weighs twice; each id has annotations of its own, so both stay.",
        breach="warning",
    ),
    Absent(
        name="mask_unique",
        column="same_mask",
        why="The same runs twice in an image (referring data: in a record) weigh twice, but harm little; "
        "many of them mean that files were joined twice.",
        breach="warning",
    ),
)

SA1B_CONTRACT = Contract(
    name="sa1b_masks",
    columns=MEASURED_COLUMNS,
    # Areas are exact; boxes reach from first to last pixel, so they are one short in width and height.
    convention=Convention(box_shortfall=1),
    rules=(
        *FILE_RULES,
        *IMAGE_RULES,
        *ROW_RULES,
        unique_rows("image_id", "row_id", "mask_id"),
        *MASK_RULES,
        *QUALITY_RULES,
        *SPLIT_RULES,
        *REPETITIONS,
    ),
)
