"""What a fork server imports once, for processes that compute on the processor, also beside a GPU."""

import os

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}

import deepspeed  # noqa: F401
