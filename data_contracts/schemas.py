"""Arrow schemas of the prepared data: one for masks (SA-1B), one for referring records.

Both hold one row an image, so that an image is stored and read once for all its masks. Masks are
compressed COCO run-length encodings of the image's own size (`pycocotools` string form, ASCII).
Boxes are `[x, y, width, height]` in pixels, computed from the runs.
"""

import pyarrow as pa

SCHEMA_VERSION = "1"

BOX = pa.list_(pa.float32(), 4)

MASK = pa.struct(
    [
        pa.field("mask_id", pa.string(), nullable=False),
        pa.field("counts", pa.string(), nullable=False),
        pa.field("box", BOX, nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("boundary_length", pa.int64(), nullable=False),
        pa.field("predicted_iou", pa.float32()),
        pa.field("stability_score", pa.float32()),
    ]
)

IMAGE_FIELDS = [
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("image_sha256", pa.string(), nullable=False),
    pa.field("image", pa.binary(), nullable=False),
]

MASKS_SCHEMA = pa.schema(
    [*IMAGE_FIELDS, pa.field("masks", pa.list_(MASK), nullable=False)],
    metadata={"schema": "masks", "version": SCHEMA_VERSION},
)

INSTANCE = pa.struct(
    [
        pa.field("instance_id", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("counts", pa.string(), nullable=False),
        pa.field("box", BOX, nullable=False),
        pa.field("area", pa.int64(), nullable=False),
    ]
)

RECORD = pa.struct(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("expressions", pa.list_(pa.string()), nullable=False),
        pa.field("no_target", pa.bool_(), nullable=False),
        # The union of the instances; null where no_target.
        pa.field("counts", pa.string()),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("boundary_length", pa.int64(), nullable=False),
        pa.field("instances", pa.list_(INSTANCE), nullable=False),
    ]
)

REFERRING_SCHEMA = pa.schema(
    [*IMAGE_FIELDS, pa.field("records", pa.list_(RECORD), nullable=False)],
    metadata={"schema": "referring", "version": SCHEMA_VERSION},
)

QUARANTINE_SCHEMA = pa.schema(
    [
        # What was rejected: an "image" (with all its rows), a "mask" or a "record".
        pa.field("kind", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        # How many rows (masks or records) this rejection stands for; an image stands for all of its rows.
        pa.field("rows", pa.int64(), nullable=False),
    ],
    metadata={"schema": "quarantine", "version": SCHEMA_VERSION},
)
