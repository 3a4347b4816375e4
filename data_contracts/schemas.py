"""Arrow schemas of the prepared data: one for masks (SA-1B), one for referring records, one for questions.

All hold one row an image, so that an image is stored and read once for all its masks. Every field says
what it means, and in which unit, in its metadata; `docs/data.md` shows them all.

A row is consistent in itself: `width` and `height` are those of the stored image, and its masks are
compressed COCO run-length encodings (`pycocotools` string form, ASCII) of that same size. Boxes, areas and
boundary lengths are computed from these runs. Where images are stored smaller than published, only
`original_width` and `original_height` tell.
"""

import pyarrow as pa

SCHEMA_VERSION = "2"


def described(
    name: str, kind: pa.DataType, description: str, unit: str | None = None, nullable: bool = False
) -> pa.Field:
    """A field with its meaning, and its unit where it has one, as metadata."""
    metadata = {"description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _item(kind: pa.DataType, description: str, unit: str | None = None) -> pa.Field:
    return described("item", kind, description, unit, nullable=True)


BOX = pa.list_(_item(pa.float32(), "x, y, width and height in this order", "pixels"), 4)


def _counts(description: str, nullable: bool = False) -> pa.Field:
    return described("counts", pa.string(), description, "compressed COCO RLE", nullable)


MASK = pa.struct(
    [
        described("mask_id", pa.string(), "the publisher's id, unique within the image"),
        _counts("runs of the mask, of the size of the stored image"),
        described("box", BOX, "smallest box around the mask: x, y, width, height", "pixels"),
        described("area", pa.int64(), "pixels in the mask", "pixels"),
        described(
            "boundary_length",
            pa.int64(),
            "pixels of the mask with one of their four neighbours outside it",
            "pixels",
        ),
        described(
            "predicted_iou",
            pa.float32(),
            "the IoU that the model behind the data set expected of its mask",
            "0 to about 1",
            nullable=True,
        ),
        described(
            "stability_score",
            pa.float32(),
            "IoU of the mask at a higher and a lower threshold of its logits",
            "0 to 1",
            nullable=True,
        ),
    ]
)

IMAGE_FIELDS = [
    described("image_id", pa.string(), "the publisher's id, unique within the partition"),
    described(
        "image_numbering",
        pa.string(),
        "whose ids image_id is one of (coco), so that data sets compare by id; null where they are its own",
        nullable=True,
    ),
    described("source", pa.string(), "partition the row was prepared in"),
    described("split", pa.string(), "the publisher's split, or train and held_out chosen by hash of the id"),
    described("width", pa.int32(), "of the stored image and of its masks", "pixels"),
    described("height", pa.int32(), "of the stored image and of its masks", "pixels"),
    described("original_width", pa.int32(), "of the published image", "pixels"),
    described("original_height", pa.int32(), "of the published image", "pixels"),
    described("image_sha256", pa.string(), "SHA-256 of the published file, however it is stored", "hex"),
    described(
        "image", pa.binary(), "the image file; EXIF orientation is not to be applied", "JPEG, PNG or WebP"
    ),
]

MASKS_SCHEMA = pa.schema(
    [
        *IMAGE_FIELDS,
        described(
            "largest_mask_share",
            pa.float32(),
            "area of the largest mask over the square of the image's longer side; 0 without masks",
            "0 to 1",
        ),
        described("masks", pa.list_(_item(MASK, "one mask")), "accepted masks of the image"),
    ],
    metadata={"schema": "masks", "version": SCHEMA_VERSION},
)

INSTANCE = pa.struct(
    [
        described("instance_id", pa.string(), "the publisher's id of the annotation"),
        described("category", pa.string(), "name of the object's category", nullable=True),
        _counts("runs of the instance, of the size of the stored image"),
        described("box", BOX, "smallest box around the instance: x, y, width, height", "pixels"),
        described("area", pa.int64(), "pixels of the instance", "pixels"),
    ]
)

RECORD = pa.struct(
    [
        described("record_id", pa.string(), "the publisher's id of the reference"),
        described("expressions", pa.list_(_item(pa.string(), "one way to say it")), "what is asked for"),
        described("no_target", pa.bool_(), "whether the expressions mean nothing in the image"),
        _counts("runs of the union of the instances; null where there is no target", nullable=True),
        described("area", pa.int64(), "pixels of the union", "pixels"),
        described(
            "boundary_length",
            pa.int64(),
            "pixels of the union with one of their four neighbours outside it",
            "pixels",
        ),
        described(
            "ignore",
            pa.string(),
            "runs of pixels that count neither as target nor as background, apart from the union; null for none",
            "compressed COCO RLE",
            nullable=True,
        ),
        described("instances", pa.list_(_item(INSTANCE, "one instance")), "objects the expressions mean"),
    ]
)

REFERRING_SCHEMA = pa.schema(
    [
        *IMAGE_FIELDS,
        described("records", pa.list_(_item(RECORD, "one record")), "accepted records of the image"),
    ],
    metadata={"schema": "referring", "version": SCHEMA_VERSION},
)

QUESTION = pa.struct(
    [
        described("question_id", pa.string(), "unique within the partition; made of the publisher's own id"),
        described("scoring", pa.string(), "whose official score it counts in: pope, vqav2 or mme"),
        described("question", pa.string(), "as it is put to the model"),
        described(
            "answers",
            pa.list_(_item(pa.string(), "one answer")),
            "of one person each; yes and no in small letters",
        ),
        described(
            "category",
            pa.string(),
            "POPE: how absent objects were chosen; VQAv2: sort of answer; MME: subtask",
            nullable=True,
        ),
        described("question_type", pa.string(), "VQAv2: first words of the question", nullable=True),
        described("pair", pa.string(), "MME: questions with the same one are scored together", nullable=True),
    ]
)

VQA_SCHEMA = pa.schema(
    [
        *IMAGE_FIELDS,
        described("questions", pa.list_(_item(QUESTION, "one question")), "accepted questions of the image"),
    ],
    metadata={"schema": "vqa", "version": SCHEMA_VERSION},
)

MASK_TOKENS_SCHEMA = pa.schema(
    [
        described("dataset", pa.string(), "partition of the referring data that the record is in"),
        described("image_id", pa.string(), "image that the mask is in"),
        described("record_id", pa.string(), "record whose union of instances was coded"),
        described(
            "codes",
            pa.list_(_item(pa.int32(), "one code", "entry of the codebook")),
            "all codes of the mask; the first `length` of them are its adaptive-length form",
        ),
        described("length", pa.int32(), "codes kept of the adaptive-length form", "codes"),
        described(
            "full_iou",
            pa.float32(),
            "IoU with the mask of what all codes give, in the image's size",
            "0 to 1",
        ),
        described("adaptive_iou", pa.float32(), "the same of the first `length` codes", "0 to 1"),
    ],
    metadata={"schema": "mask_tokens", "version": SCHEMA_VERSION},
)

QUARANTINE_SCHEMA = pa.schema(
    [
        described(
            "kind", pa.string(), "what was rejected: an image with all its rows, a mask, record or question"
        ),
        described("source_file", pa.string(), "file it was read from"),
        described("row_id", pa.string(), "id of what was rejected"),
        described("image_id", pa.string(), "image it belongs to", nullable=True),
        described("rule", pa.string(), "first rule of the contract that it breaks"),
        described("value", pa.string(), "what broke the rule"),
        described("reason", pa.string(), "why the rule exists"),
        described("rows", pa.int64(), "masks or records it stands for; an image for all it holds", "rows"),
    ],
    metadata={"schema": "quarantine", "version": SCHEMA_VERSION},
)
