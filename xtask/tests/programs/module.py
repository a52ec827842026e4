"""Calls everything in the Python module: module.py MODEL.gguf PICTURE.ppm. Prints its structs as layout.c does, then what it calls."""

import ctypes
import sys

import lxmert
import numpy as np

QUESTION = "what shape is in the image?"


def show_layout():
    names = {
        "lxmert_model_info": lxmert._ModelInfo,
        "lxmert_session_options": lxmert._SessionOptions,
        "lxmert_memory_plan": lxmert._MemoryPlan,
        "lxmert_session_info": lxmert._SessionInfo,
        "lxmert_answer": lxmert._Answer,
        "lxmert_tensor": lxmert._Tensor,
    }
    for name, struct in names.items():
        print(name, ctypes.sizeof(struct))
        for field, *_ in struct._fields_:
            print(f"{name}.{field}", getattr(struct, field).offset)


def refused(kind, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except kind:
        return
    sys.exit(f"{call} took {arguments} {options}")


def use_model(model):
    info = model.info()
    assert info["label_count"] == 13 and info["has_tokenizer"] is True
    assert model.name() is None or isinstance(model.name(), str)
    labels = [model.label(index) for index in range(13)]
    assert "circle" in labels
    ids = model.tokenize(QUESTION)
    assert ids.dtype == np.uint32 and 0 < ids.size <= info["max_tokens"]
    assert model.plan(threads=1)["total"] > 0
    refused(ValueError, model.tokenize, "a\0b")
    refused(ValueError, lxmert.Model, "a\0b")
    refused(ValueError, model.plan, lowering="ggml\0")
    refused(ValueError, model.plan, outputs=["pooled_output\0"])
    refused(TypeError, model.plan, colour="red")
    return info


def use_session(session, info, picture):
    rgb = lxmert.read_image(picture)
    refused(lxmert.Error, session.ask, QUESTION)
    refused(ValueError, session.encode_pixels, rgb[:, :, 0])
    session.encode_pixels(rgb)
    assert session.info()["label_count"] == 13
    everything = session.ask(QUESTION, most=1 << 40)
    assert len(everything) == 13 and everything[0].text == "circle"
    refused(ValueError, session.ask, "a\0b")
    pooled = session.output("pooled_output")
    assert pooled.dtype == np.float32 and pooled.shape == (1, info["hidden_size"])
    refused(ValueError, session.output, "pooled_output\0")
    session.encode_regions(np.zeros((1, info["feature_size"])), np.zeros((1, info["box_size"])))
    refused(ValueError, session.encode_regions, np.zeros((1, 1)), np.zeros((1, 1)))
    for seconds in (1e-9, 3600, 1e300, float("inf"), None):
        session.set_time_limit(seconds)
    for seconds in (-1e-9, -3600, float("nan")):
        refused(ValueError, session.set_time_limit, seconds)
    session.cancel()


def main():
    _, path, picture = sys.argv
    show_layout()
    model = lxmert.Model(path)
    info = use_model(model)
    session = model.session(threads=1, outputs=["pooled_output", "question_answering_score"])
    model.close()
    use_session(session, info, picture)
    session.close()
    print("lxmert", lxmert.version())


main()
