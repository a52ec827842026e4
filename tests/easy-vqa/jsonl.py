"""Writes easy-VQA's questions as JSONL for `lxmert-quantize eval` and `imatrix`.

    python tests/easy-vqa/jsonl.py test  > tests/easy-vqa/test.jsonl
    python tests/easy-vqa/jsonl.py train > train.jsonl      (pip install easy-vqa)

`test` are the questions of test_questions.json beside this script, with the pictures' paths relative to it; `train` the
first 400 pictures of the Python package's training split, with absolute paths.
"""
import json
import os
import sys

TRAIN_PICTURES = 400


def test():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "test_questions.json")) as file:
        for question, answer, picture in json.load(file):
            yield question, answer, f"test_images/{picture}.png"


def train():
    import easy_vqa

    paths = easy_vqa.get_train_image_paths()
    rows = sorted(zip(*easy_vqa.get_train_questions()), key=lambda row: row[2])
    for question, answer, picture in rows:
        if picture < TRAIN_PICTURES:
            yield question, answer, paths[picture]


for question, answer, image in {"test": test, "train": train}[sys.argv[1]]():
    print(json.dumps({"question": question, "image": image, "answer": answer}))
