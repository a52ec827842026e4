#!/usr/bin/env python3
"""Make the model, its inputs and the peers' files in the work directory: `prepare.py WORK BATCHES [PEER...]`.

Everything is made once; what exists is kept.
"""
import os
import pathlib
import shutil
import sys
import warnings

import numpy as np

SEED = 1
ANSWERS, TOKENS, REGIONS, FEATURES = 3129, 20, 36, 2048
INPUTS = ["input_ids", "visual_feats", "visual_pos"]
LOGITS = "question_answering_score"


def random_inputs(batch, seed):
    """Questions from [CLS] to [SEP] without padding; features as after a ReLU; boxes as x1, y1, x2, y2.

    Attention mask and token types are left to their defaults everywhere, which all exporters fold into constants.
    """
    generator = np.random.default_rng(seed)
    ids = generator.integers(1000, 30000, (batch, TOKENS))
    ids[:, 0], ids[:, -1] = 101, 102
    features = np.maximum(generator.standard_normal((batch, REGIONS, FEATURES), dtype=np.float32), 0)
    corners = generator.random((2, batch, REGIONS, 2), dtype=np.float32)
    boxes = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=-1)
    return dict(zip(INPUTS, (ids, features, boxes)))


def make(path, function, *arguments):
    """Calls `function` with a fresh directory that becomes `path` only once all of it is there."""
    if path.exists():
        return
    print(f"making {path.name}", file=sys.stderr)
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    function(unfinished, *arguments)
    unfinished.rename(path)


def checkpoint(directory):
    import torch
    from transformers import LxmertConfig, LxmertForQuestionAnswering

    torch.manual_seed(SEED)
    LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=ANSWERS)).save_pretrained(directory)


def load_model(work):
    import torch
    from transformers import LxmertForQuestionAnswering

    class Answer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            model = LxmertForQuestionAnswering.from_pretrained(work / "checkpoint")
            # The keyword for the type has another name in older versions.
            self.model = model.float().eval()

        def forward(self, input_ids, visual_feats, visual_pos):
            inputs = dict(input_ids=input_ids, visual_feats=visual_feats, visual_pos=visual_pos)
            return self.model(**inputs, return_dict=True)[LOGITS]

    return Answer()


def inputs_and_logits(directory, work, batch):
    import torch
    from safetensors.numpy import save_file

    inputs = random_inputs(batch, SEED)
    with torch.no_grad():
        logits = load_model(work)(*(torch.from_numpy(tensor) for tensor in inputs.values())).numpy()
    save_file(inputs, directory / "inputs.safetensors")
    save_file({LOGITS: logits}, directory / "logits.safetensors")


def onnx_f32(directory, work):
    import torch
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # The older of PyTorch's two exporters, because ONNX Runtime answers faster from its file: it spells GELU out with
    # erf, which ONNX Runtime has a faster fused operation for than for ONNX's Gelu.
    example = tuple(torch.from_numpy(tensor) for tensor in random_inputs(2, SEED).values())
    exported = directory / "exported.onnx"
    with torch.no_grad():
        torch.onnx.export(
            load_model(work),
            example,
            exported,
            dynamo=False,
            opset_version=18,
            input_names=INPUTS,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in [*INPUTS, "logits"]},
        )
    # The weights that both directions of cross-attention share are behind Identity nodes in the exported graph;
    # folding those is what lets the quantizer see them. Weights in a file of their own are mapped instead of parsed,
    # which halves the time to load.
    quant_pre_process(
        exported,
        directory / "model.onnx",
        skip_symbolic_shape=True,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        external_data_location="model.onnx.data",
    )
    exported.unlink()


def onnx_int8(directory, work):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # One scale per tensor is 1 to 3 % faster than one per channel, with an error of 4.0 instead of 3.5 %.
    quantize_dynamic(
        work / "onnxruntime-f32" / "model.onnx",
        directory / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=False,
        use_external_data_format=True,
    )


def openvino(directory, work, change, halves):
    """The exported model after `change`; floats are stored as f16 where `halves`."""
    import openvino as ov

    model = ov.Core().read_model(work / "onnxruntime-f32" / "model.onnx")
    ov.save_model(change(model), directory / "model.xml", compress_to_fp16=halves)


def static_int8(model):
    import nncf

    samples = [random_inputs(1, SEED + 1 + n) for n in range(64)]
    return nncf.quantize(
        model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
    )


def int8_weights(model):
    import nncf

    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def unchanged(model):
    return model


def main():
    # Of the exporters, about constants that are meant to be constants.
    warnings.filterwarnings("ignore")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    work, batches, *peers = sys.argv[1:]
    work = pathlib.Path(work)
    make(work / "checkpoint", checkpoint)
    for batch in map(int, batches.split(",")):
        make(work / f"batch-{batch}", inputs_and_logits, work, batch)
    if peers:
        # All other files are made from this one.
        make(work / "onnxruntime-f32", onnx_f32, work)
    makers = {
        "onnxruntime-int8": (onnx_int8, work),
        "openvino-f32": (openvino, work, unchanged, False),
        "openvino-bf16": (openvino, work, unchanged, True),
        "openvino-int8": (openvino, work, static_int8, False),
        "openvino-int8-weights": (openvino, work, int8_weights, False),
    }
    for peer in peers:
        if peer in makers:
            make(work / peer, *makers[peer])


if __name__ == "__main__":
    main()
