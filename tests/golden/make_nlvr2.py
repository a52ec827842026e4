#!/usr/bin/env python3
"""Make the golden case nlvr2-small: the encoders of transformers under an NLVR2 head of this script.

    pip install torch transformers safetensors
    python make_nlvr2.py

transformers has no such head. Here it is computed from its description (Tan & Bansal 2019, section 4): the pooled
outputs of a statement's two images, one after the other, then linear, GELU (exact), layer norm, linear.
"""
import pathlib

import torch
import transformers
from safetensors.torch import save_file

CASE = pathlib.Path(__file__).parent / "nlvr2-small"
HIDDEN, FEATURES, WORDS = 32, 12, 40
STATEMENTS, TOKENS, REGIONS = 3, 6, 5


def random_weights(module, generator):
    for name, tensor in module.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 2:
            tensor.data = noise * 0.7 / tensor.shape[1] ** 0.5
        elif "weight" in name:
            tensor.data = 1 + 0.2 * noise
        else:
            tensor.data = 0.1 * noise


@torch.no_grad()
def main():
    generator = torch.Generator().manual_seed(2)
    config = transformers.LxmertConfig(
        vocab_size=WORDS, hidden_size=HIDDEN, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=16, l_layers=2, r_layers=1, x_layers=1, visual_feat_dim=FEATURES,
    )
    encoders = transformers.LxmertModel(config).eval()
    head = torch.nn.Sequential(
        torch.nn.Linear(2 * HIDDEN, 2 * HIDDEN),
        torch.nn.GELU(),
        torch.nn.LayerNorm(2 * HIDDEN, eps=1e-12),
        torch.nn.Linear(2 * HIDDEN, 2),
    )
    random_weights(encoders, generator)
    random_weights(head, generator)

    rows = 2 * STATEMENTS
    statements = torch.randint(1, WORDS, (STATEMENTS, TOKENS), generator=generator)
    mask = torch.ones(STATEMENTS, TOKENS)
    mask[1, 4:] = 0
    corners = torch.rand(rows, REGIONS, 2, 2, generator=generator).sort(dim=2).values
    inputs = {
        # Each statement twice, once for either image.
        "input_ids": statements.repeat_interleave(2, dim=0),
        "attention_mask": mask.repeat_interleave(2, dim=0),
        "visual_feats": torch.rand(rows, REGIONS, FEATURES, generator=generator),
        "visual_pos": corners.reshape(rows, REGIONS, 4),
    }
    pooled = encoders(**inputs, return_dict=True).pooled_output
    both = torch.stack([torch.cat([pooled[2 * n], pooled[2 * n + 1]]) for n in range(STATEMENTS)])
    outputs = {"pooled_output": pooled, "question_answering_score": head(both)}

    CASE.mkdir(exist_ok=True)
    weights = {f"lxmert.{name}": tensor for name, tensor in encoders.state_dict().items()}
    weights.update({f"answer_head.logit_fc.{name}": tensor for name, tensor in head.state_dict().items()})
    for name, tensors in [("model", weights), ("inputs", inputs), ("outputs", outputs)]:
        save_file({key: value.contiguous() for key, value in tensors.items()}, CASE / f"{name}.safetensors")
    (CASE / "config.json").write_text(config.to_json_string())
    print(outputs["question_answering_score"])


if __name__ == "__main__":
    main()
