"""What is compared, and how each is set up. Standard library only: the driver of the measurement stays small."""
import dataclasses
import fnmatch

OURS, ONNX_RUNTIME, OPENVINO = "lxmert", "onnxruntime", "openvino"
TYPES = ["f32", "bf16", "q8_0", "q4_0", "q4_K"]


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A way to run the model. `name` is its directory in the work directory too, or its file's stem."""

    name: str
    kind: str
    # lxmert: the type, and the instruction set to pack for. OpenVINO: properties of the compiled model.
    type: str = ""
    pack: str = ""
    properties: tuple = ()

    @property
    def is_ours(self):
        return self.kind == OURS

    def file(self, work):
        """What the runtime is told to open."""
        if self.is_ours:
            return work / f"{self.name}.gguf"
        return work / self.name / ("model.onnx" if self.kind == ONNX_RUNTIME else "model.xml")

    def bytes(self, work):
        """The size of all its files."""
        file = self.file(work)
        files = [file] if self.is_ours else [path for path in file.parent.iterdir() if path.is_file()]
        return sum(path.stat().st_size for path in files)


# DYNAMIC_QUANTIZATION_GROUP_SIZE decides how fast OpenVINO's dynamic activations are. It has to divide the columns of a
# matrix, or the product falls back to floats: 768 divides all of LXMERT's but those of the region features, and was
# faster by a quarter than the default of 32, where 3072 or "one group per row" took more than twice as long.
# bf16 for what is left in floats is worth another 3 to 6 %; int8 with static activations does not gain from it.
PEERS = [
    Runtime("onnxruntime-f32", ONNX_RUNTIME),
    Runtime("onnxruntime-int8", ONNX_RUNTIME),
    Runtime("openvino-f32", OPENVINO, properties=(("INFERENCE_PRECISION_HINT", "f32"),)),
    Runtime("openvino-bf16", OPENVINO, properties=(("INFERENCE_PRECISION_HINT", "bf16"),)),
    Runtime("openvino-int8", OPENVINO, properties=(("INFERENCE_PRECISION_HINT", "f32"),)),
    Runtime(
        "openvino-int8-weights",
        OPENVINO,
        properties=(("INFERENCE_PRECISION_HINT", "bf16"), ("DYNAMIC_QUANTIZATION_GROUP_SIZE", "768")),
    ),
]


def all_runtimes(pack):
    """Ours first, then the peers. With `pack`, every type of ours a second time, packed for that instruction set."""
    ours = [Runtime(f"lxmert-{type}", OURS, type=type) for type in TYPES]
    if pack:
        ours += [Runtime(f"lxmert-{type}-packed", OURS, type=type, pack=pack) for type in TYPES]
    return ours + PEERS


def chosen(runtimes, patterns):
    """The runtimes whose names match one of the shell patterns; ValueError if a pattern matches none."""
    for pattern in patterns:
        if not fnmatch.filter([runtime.name for runtime in runtimes], pattern):
            names = ", ".join(runtime.name for runtime in runtimes)
            raise ValueError(f"{pattern} is none of {names}")
    return [
        runtime for runtime in runtimes if any(fnmatch.fnmatch(runtime.name, pattern) for pattern in patterns)
    ]
