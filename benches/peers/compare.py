#!/usr/bin/env python3
"""The error of logits: `compare.py LOGITS REFERENCE`, two safetensors files."""
import sys

import numpy as np
from safetensors.numpy import load_file


def relative_l2(logits, reference):
    """Of a whole batch at once: the norm of the difference over the norm of the reference."""
    return float(np.linalg.norm(logits - reference) / np.linalg.norm(reference))


def logits_in(path):
    return load_file(path)["question_answering_score"]


if __name__ == "__main__":
    print(relative_l2(logits_in(sys.argv[1]), logits_in(sys.argv[2])))
