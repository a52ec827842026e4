#!/usr/bin/env python3
"""Compute the outputs of golden cases with PyTorch.

    pip install torch transformers safetensors
    python record.py CASE...             compare with the recorded outputs
    python record.py --write CASE...     record them

A case is a directory with config.json, model.safetensors and inputs.safetensors.
"""
import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import load_file, save_file

LISTS = [
    "language_hidden_states",
    "vision_hidden_states",
    "language_attentions",
    "vision_attentions",
    "cross_encoder_attentions",
]
HEADS = ["prediction_logits", "cross_relationship_score", "question_answering_score"]


@torch.no_grad()
def outputs_of(case):
    config = json.loads((case / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(case, dtype=torch.float32).eval()
    inputs = load_file(case / "inputs.safetensors")
    arguments = dict(inputs, output_hidden_states=True, output_attentions=True, return_dict=True)

    encoders = getattr(model, "lxmert", model)
    out = encoders(**arguments)
    found = {name: getattr(out, name) for name in ["language_output", "vision_output", "pooled_output"]}
    for name in LISTS:
        found.update({f"{name}.{n}": tensor for n, tensor in enumerate(getattr(out, name))})
    if model is not encoders:
        scores = model(**arguments)
        found.update({name: getattr(scores, name) for name in HEADS if getattr(scores, name, None) is not None})
    # Hugging Face evaluates this head only inside its loss.
    if hasattr(model, "obj_predict_head"):
        predicted = model.obj_predict_head(found["vision_output"])
        found.update({f"visual_{name}_score": tensor for name, tensor in predicted.items()})
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("cases", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    print("torch", torch.__version__, "transformers", transformers.__version__)
    for case in arguments.cases:
        found = outputs_of(case)
        path = case / "outputs.safetensors"
        if arguments.write:
            save_file(found, path)
            continue
        recorded = load_file(path)
        assert found.keys() == recorded.keys(), found.keys() ^ recorded.keys()
        largest = max((found[name] - recorded[name]).abs().max().item() for name in found)
        print(f"{case.name}: {len(found)} outputs, largest difference {largest:.1e}")


if __name__ == "__main__":
    main()
