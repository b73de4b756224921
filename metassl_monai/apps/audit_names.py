# SPDX-License-Identifier: Apache-2.0
"""Which names of which modules a config may use: those that build, compute and look, and none that run or write."""

from __future__ import annotations

__all__ = ["BUILTINS", "METHODS_THAT_ACT", "is_known_module", "name_mistake"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILTINS = _words(
    "abs all any bool dict enumerate filter float frozenset int isinstance len list map max min range reversed round "
    "set slice sorted str sum tuple zip"
)
METHODS_THAT_ACT = _words(
    "chmod connect eval exec exec_module execute extractall hardlink_to lchmod load_module mkdir open popen rmdir "
    "run_cmd run_path rmtree send spawn symlink_to system touch unlink urlopen write write_bytes write_text"
)
"""Names of methods by which an object, whatever it is, would write or start something."""

_ALLOWED = {
    "copy": "copy deepcopy",
    "datetime": "*",
    "functools": "partial reduce",
    "glob": "glob iglob",
    "itertools": "*",
    "json": "dumps loads",
    "math": "*",
    "metassl_monai": "__version__",
    "metassl_monai.bundle": "check_command_line check_data check_inference check_network check_no_training "
    "check_volumes check_writable first_stage first_stage_trainer run_record running_config start_from",
    "metassl_monai.data": "*",
    "metassl_monai.engines": "*",
    "metassl_monai.handlers": "*",
    "metassl_monai.losses": "*",
    "metassl_monai.methods": "*",
    "metassl_monai.metrics": "*",
    "metassl_monai.networks": "*",
    "metassl_monai.planning": "image_cases",
    "metassl_monai.transforms": "*",
    "monai": "__version__",
    "monai.data": "*",
    "monai.engines": "*",
    "monai.handlers": "*",
    "monai.inferers": "*",
    "monai.losses": "*",
    "monai.metrics": "*",
    "monai.networks": "*",
    "monai.optimizers": "*",
    "monai.transforms": "*",
    "monai.utils": "BlendMode CommonKeys ensure_tuple ensure_tuple_rep path_to_sqlite_uri set_determinism",
    "monai.visualize": "*",
    "numpy": "abs arange array asarray ceil clip concatenate eye exp float32 float64 floor full inf int16 int32 int64 "
    "linspace log max mean min nan ones prod round sqrt stack std sum uint8 unique zeros",
    "os": "cpu_count environ environ.get getcwd getpid sep",
    "os.path": "*",
    "pathlib": "Path Path.cwd PurePath PurePosixPath",
    "PIL.Image": "Image.convert fromarray new",
    "re": "*",
    "time": "monotonic strftime time",
    "torch": "Tensor abs arange argmax bfloat16 bool cat channels_last clamp contiguous_format device eye exp float "
    "float16 float32 float64 full get_num_threads inf int16 int32 int64 int8 linspace log log2 long manual_seed max "
    "mean min nan no_grad ones relu round set_num_threads sigmoid sign softmax sqrt stack std sum tensor uint8 unique "
    "where zeros __version__",
    "torch.backends": "*",
    "torch.cuda": "device_count get_device_name is_available set_device",
    "torch.distributed": "all_reduce barrier destroy_process_group get_rank get_world_size init_process_group "
    "is_available is_initialized",
    "torch.nn": "*",
    "torch.Tensor": "*",
    "torch.optim": "*",
    "torch.utils.data": "*",
}
"""What is allowed below each module: a module that a longer entry names is judged by that one."""

_DENIED = _words(
    "builtins code compile ctypes eval exec from_file hub importlib jit load load_module marshal multiprocessing open "
    "os pickle platform pty run_cmd runpy save serialization shutil socket subprocess sys tempfile urllib urlretrieve"
)
"""Parts of a name that lead out of what is allowed, such as a module that another one has imported."""


def is_known_module(name: str) -> bool:
    """Say whether a config may import a module.

    Example:
        >>> is_known_module("torch.distributed"), is_known_module("PIL"), is_known_module("subprocess")
        (True, True, False)
    """
    whole = [known for known, names in _ALLOWED.items() if names == "*"]
    return any(f"{known}.".startswith(f"{name}.") for known in _ALLOWED) or any(
        name.startswith(f"{known}.") for known in whole
    )


def name_mistake(name: str) -> str | None:
    """Return why a config is not to use a dotted name; None where it may.

    Example:
        >>> name_mistake("torch.nn.Softmax"), name_mistake("os.system")
        (None, 'os.system is not on the list of what is known')
    """
    module = next((name[:i] for i in _ends(name) if name[:i] in _ALLOWED), None)
    rest = name[len(module) + 1 :] if module else ""
    known = module is not None and rest and (_ALLOWED[module] == "*" or rest in _words(_ALLOWED[module]))
    parts = rest.split(".")
    if not known or any(part in _DENIED or (part.startswith("_") and part != "__version__") for part in parts):
        return f"{name} is not on the list of what is known"
    return None


def _ends(name: str) -> list[int]:
    """Where the parts of a dotted name end, the longest beginning first."""
    return [i for i in range(len(name), 0, -1) if i == len(name) or name[i] == "."]
