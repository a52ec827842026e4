"""lxmert for Python: the C library's functions by ctypes, with numpy arrays for tensors.

The library is the file named by the environment's LXMERT_LIBRARY, or else the one that the system's loader finds.

    model = lxmert.Model("easy-vqa-q8_0.gguf")
    session = model.session(threads=1)
    session.encode_pixels(rgb)                      # uint8 [height, width, 3]
    for answer in session.ask("what shape is it?"):
        print(answer.text, answer.softmax)

What allocates, which threads may call a function and how it fails is told by lxmert.h. A call releases Python's lock, so sessions on
several threads compute side by side.
"""

import ctypes
import ctypes.util
import math
import os
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_float, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

ABI_VERSION = 1


class Error(Exception):
    """A call that failed. `status` is its name, such as "LXMERT_IO"; the text says what is wrong and what to do."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Answer(NamedTuple):
    """One answer and how it scored. `text` is None if the model's file holds no answers."""

    label: int
    text: Optional[str]
    logit: float
    softmax: float
    sigmoid: float


class _Sized(Structure):
    """A struct that begins with its size, as the library asks of all that may grow."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)

    def as_dict(self):
        names = [field[0] for field in self._fields_[1:]]
        values = ((name, getattr(self, name)) for name in names)
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in values}


class _ModelInfo(_Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("head", c_int32),
        ("front_end", c_int32),
        ("label_count", c_size_t),
        ("has_label_texts", c_bool),
        ("has_tokenizer", c_bool),
        ("images_per_answer", c_size_t),
        ("hidden_size", c_size_t),
        ("vocab_size", c_size_t),
        ("max_tokens", c_size_t),
        ("max_regions", c_size_t),
        ("max_batch", c_size_t),
        ("feature_size", c_size_t),
        ("box_size", c_size_t),
        ("grid_rows", c_size_t),
        ("grid_columns", c_size_t),
        ("parameters", c_uint64),
        ("file_bytes", c_uint64),
    ]


class _SessionOptions(_Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("max_tokens", c_size_t),
        ("max_regions", c_size_t),
        ("max_batch", c_size_t),
        ("threads", c_size_t),
        ("cpus", POINTER(c_uint32)),
        ("cpu_count", c_size_t),
        ("lowering", c_char_p),
        ("outputs", POINTER(c_char_p)),
        ("output_count", c_size_t),
        ("inputs_embeds", c_bool),
        ("memory_budget", c_size_t),
        ("residency", c_int32),
        ("lock_memory", c_bool),
        ("prefault", c_bool),
        ("profile", c_bool),
        ("allocator", c_void_p),
        ("memory", c_void_p),
        ("memory_size", c_size_t),
        ("abort", c_void_p),
        ("abort_user_data", c_void_p),
        ("progress", c_void_p),
        ("progress_user_data", c_void_p),
        ("device", c_char_p),
    ]


class _MemoryPlan(_Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("residency", c_int32),
        ("lowering", c_char_p),
        ("device", c_char_p),
        ("device_bytes", c_size_t),
        ("weights_mapped", c_size_t),
        ("weights_private", c_size_t),
        ("session", c_size_t),
        ("tokenizer", c_size_t),
        ("labels", c_size_t),
        ("other", c_size_t),
        ("total", c_size_t),
    ]


class _SessionInfo(_Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("residency", c_int32),
        ("lowering", c_char_p),
        ("device", c_char_p),
        ("max_tokens", c_size_t),
        ("max_regions", c_size_t),
        ("max_batch", c_size_t),
        ("threads", c_size_t),
        ("session_bytes", c_size_t),
        ("label_count", c_size_t),
    ]


class _Answer(Structure):
    _fields_ = [
        ("label", c_size_t),
        ("text", c_char_p),
        ("logit", c_float),
        ("softmax", c_float),
        ("sigmoid", c_float),
    ]


class _Tensor(_Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("data", POINTER(c_float)),
        ("rank", c_size_t),
        ("shape", c_size_t * 4),
    ]


def _load():
    path = os.environ.get("LXMERT_LIBRARY") or ctypes.util.find_library("lxmert")
    if not path:
        raise ImportError("the library lxmert is not installed: name its file in LXMERT_LIBRARY")
    library = ctypes.CDLL(path)
    # Asked first: a library of another version may lack functions.
    library.lxmert_abi_version.restype = c_uint32
    found = library.lxmert_abi_version()
    if found != ABI_VERSION:
        raise ImportError(f"{path} has version {found} of the interface, and this module is for {ABI_VERSION}")
    for name, restype, argtypes in _FUNCTIONS:
        function = getattr(library, name)
        function.restype = restype
        function.argtypes = argtypes
    return library


_FUNCTIONS = [
    ("lxmert_version", c_char_p, []),
    ("lxmert_abi_version", c_uint32, []),
    ("lxmert_status_name", c_char_p, [c_int32]),
    ("lxmert_last_error", c_char_p, []),
    ("lxmert_model_open", c_int32, [c_char_p, POINTER(c_void_p)]),
    ("lxmert_model_verify", c_int32, [c_void_p]),
    ("lxmert_model_free", None, [c_void_p]),
    ("lxmert_model_get_info", c_int32, [c_void_p, POINTER(_ModelInfo)]),
    ("lxmert_model_name", c_int32, [c_void_p, POINTER(c_char_p)]),
    ("lxmert_model_label", c_int32, [c_void_p, c_size_t, POINTER(c_char_p)]),
    ("lxmert_model_tokenize", c_int32, [c_void_p, c_char_p, POINTER(c_uint32), c_size_t, POINTER(c_size_t)]),
    ("lxmert_plan", c_int32, [c_void_p, POINTER(_SessionOptions), POINTER(_MemoryPlan)]),
    ("lxmert_session_create", c_int32, [c_void_p, POINTER(_SessionOptions), POINTER(c_void_p)]),
    ("lxmert_session_free", None, [c_void_p]),
    ("lxmert_session_get_info", c_int32, [c_void_p, POINTER(_SessionInfo)]),
    ("lxmert_session_set_time_limit", c_int32, [c_void_p, c_uint64]),
    ("lxmert_session_cancel", c_int32, [c_void_p]),
    ("lxmert_encode_pixels", c_int32, [c_void_p, POINTER(c_uint8), c_uint32, c_uint32, c_size_t]),
    ("lxmert_encode_regions", c_int32, [c_void_p, POINTER(c_float), POINTER(c_float), c_size_t]),
    ("lxmert_ask", c_int32, [c_void_p, c_char_p, POINTER(_Answer), c_size_t, POINTER(c_size_t)]),
    ("lxmert_output", c_int32, [c_void_p, c_char_p, POINTER(_Tensor)]),
]

_library = _load()


def _check(status):
    if status != 0:
        name = _library.lxmert_status_name(status).decode()
        raise Error(name, _library.lxmert_last_error().decode())


def _c_string(text):
    """A text as C takes it. One that holds a NUL would be another text there."""
    encoded = os.fsencode(text) if isinstance(text, os.PathLike) else text.encode()
    if b"\0" in encoded:
        raise ValueError(f"{text!r} holds a NUL, which would end it")
    return encoded


def version():
    """The library's version, such as "0.1.0"."""
    return _library.lxmert_version().decode()


class Model:
    """One GGUF file, shared by any number of sessions on any threads."""

    def __init__(self, path):
        self._handle = c_void_p()
        _check(_library.lxmert_model_open(_c_string(Path(os.fsdecode(path))), byref(self._handle)))

    def close(self):
        """Frees the model now. Sessions that were made of it stay usable."""
        handle, self._handle = self._handle, c_void_p()
        _library.lxmert_model_free(handle)

    def __del__(self):
        # What could not be made has no handle, and at the interpreter's end the library may be gone.
        if getattr(self, "_handle", None) and _library:
            self.close()

    def verify(self):
        """Compares the file with its checksums: an Error names the first tensor that is damaged."""
        _check(_library.lxmert_model_verify(self._handle))

    def info(self):
        """The fields of lxmert_model_info."""
        info = _ModelInfo()
        _check(_library.lxmert_model_get_info(self._handle, byref(info)))
        return info.as_dict()

    def name(self):
        """The model's name, or None."""
        text = c_char_p()
        _check(_library.lxmert_model_name(self._handle, byref(text)))
        return None if text.value is None else text.value.decode()

    def label(self, index):
        """The text of an answer."""
        text = c_char_p()
        _check(_library.lxmert_model_label(self._handle, index, byref(text)))
        return text.value.decode()

    def tokenize(self, question):
        """Token ids, uint32 [tokens], [CLS] and [SEP] included."""
        ids = np.empty(self.info()["max_tokens"], dtype=np.uint32)
        count = c_size_t()
        pointer = ids.ctypes.data_as(POINTER(c_uint32))
        _check(_library.lxmert_model_tokenize(self._handle, _c_string(question), pointer, ids.size, byref(count)))
        return ids[: count.value].copy()

    def plan(self, **options):
        """The fields of lxmert_memory_plan for a session with these options."""
        plan = _MemoryPlan()
        _check(_library.lxmert_plan(self._handle, byref(_options(options)), byref(plan)))
        return plan.as_dict()

    def session(self, **options):
        """A session with options as lxmert_session_options names them; `outputs` and `cpus` are lists."""
        return Session(self, **options)


class Session:
    """What runs a model. One thread uses it at a time; only `cancel` and `info` may be called meanwhile."""

    def __init__(self, model, **options):
        self._handle = c_void_p()
        # What the options refer to, such as memory, lives as long as the session.
        self._options = options
        info = model.info()
        self._region_widths = info["feature_size"], info["box_size"]
        self._label_count = info["label_count"]
        _check(_library.lxmert_session_create(model._handle, byref(_options(options)), byref(self._handle)))

    def close(self):
        """Frees the session now."""
        handle, self._handle = self._handle, c_void_p()
        _library.lxmert_session_free(handle)

    def __del__(self):
        if getattr(self, "_handle", None) and _library:
            self.close()

    def info(self):
        """The fields of lxmert_session_info."""
        info = _SessionInfo()
        _check(_library.lxmert_session_get_info(self._handle, byref(info)))
        return info.as_dict()

    def encode_pixels(self, rgb):
        """Encodes an image from its pixels, uint8 [height, width, 3]."""
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"rgb: expected uint8 [height, width, 3], found {rgb.dtype} {list(rgb.shape)}")
        rgb = np.ascontiguousarray(rgb)
        height, width, _ = rgb.shape
        _check(_library.lxmert_encode_pixels(self._handle, rgb.ctypes.data_as(POINTER(c_uint8)), width, height, 0))

    def encode_regions(self, features, boxes):
        """Encodes an image from a detector's features [regions, feature_size] and boxes [regions, box_size]."""
        arrays = [np.ascontiguousarray(array, dtype=np.float32) for array in (features, boxes)]
        # The library knows the widths and trusts the caller with them.
        expected = [(len(arrays[0]), width) for width in self._region_widths]
        if [array.shape for array in arrays] != expected:
            raise ValueError(f"expected features and boxes of {expected}, found {[array.shape for array in arrays]}")
        pointers = [array.ctypes.data_as(POINTER(c_float)) for array in arrays]
        _check(_library.lxmert_encode_regions(self._handle, *pointers, len(arrays[0])))

    def ask(self, question, most=3):
        """The best answers, best first."""
        most = min(most, self._label_count)
        answers = (_Answer * most)()
        count = c_size_t()
        _check(_library.lxmert_ask(self._handle, _c_string(question), answers, most, byref(count)))
        return [
            Answer(a.label, None if a.text is None else a.text.decode(), a.logit, a.softmax, a.sigmoid)
            for a in answers[: count.value]
        ]

    def output(self, name):
        """A copy of an output of the last run, float32."""
        tensor = _Tensor()
        _check(_library.lxmert_output(self._handle, _c_string(name), byref(tensor)))
        return np.ctypeslib.as_array(tensor.data, shape=tuple(tensor.shape[: tensor.rank])).copy()

    def set_time_limit(self, seconds):
        """Gives each call from now on at most so long; None for no limit."""
        if seconds is None:
            microseconds = 0
        elif seconds >= 0:
            # Rounded up, so that a short limit does not become none.
            microseconds = max(1, math.ceil(min(seconds * 1e6, 2.0**63)))
        else:
            raise ValueError(f"seconds: expected 0 or more, found {seconds}")
        _check(_library.lxmert_session_set_time_limit(self._handle, microseconds))

    def cancel(self):
        """From any thread: the call in progress raises an Error of LXMERT_CANCELLED."""
        _check(_library.lxmert_session_cancel(self._handle))


def _options(options):
    """The struct of these options. What it points to lives as long as the struct."""
    fields = dict(options)
    if fields.get("lowering") is not None:
        fields["lowering"] = _c_string(fields["lowering"])
    if fields.get("outputs") is not None:
        names = [_c_string(name) for name in fields["outputs"]]
        fields["outputs"] = (c_char_p * len(names))(*names)
        fields["output_count"] = len(names)
    if fields.get("cpus") is not None:
        cpus = list(fields["cpus"])
        fields["cpus"] = (c_uint32 * len(cpus))(*cpus)
        fields["cpu_count"] = len(cpus)
    # ctypes would take an unknown name for an attribute of the object, and the option would be lost.
    unknown = set(fields) - {field[0] for field in _SessionOptions._fields_}
    if unknown:
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    return _SessionOptions(**fields)


def read_image(path):
    """Pixels of a picture, uint8 [height, width, 3]: binary PPM (P6), or whatever Pillow reads where that is installed."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"P6":
        return _parse_ppm(data)
    try:
        from PIL import Image
    except ImportError:
        raise ValueError(f"{path}: not a binary PPM file (P6), and Pillow, which reads others, is not installed") from None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _parse_ppm(data):
    numbers, place = [], 2
    while len(numbers) < 3:
        while data[place : place + 1].isspace():
            place += 1
        if data[place : place + 1] == b"#":
            end = data.find(b"\n", place)
            place = len(data) if end < 0 else end
            continue
        start = place
        while data[place : place + 1].isdigit():
            place += 1
        if start == place:
            raise ValueError("the PPM file's header is not a picture's")
        numbers.append(int(data[start:place]))
    width, height, largest = numbers
    size = 3 * width * height
    # One space stands before the pixels.
    pixels = data[place + 1 : place + 1 + size]
    if largest != 255 or size == 0 or len(pixels) != size:
        raise ValueError("expected a PPM file with 8 bits per channel and all its pixels")
    return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)
