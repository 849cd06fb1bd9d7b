"""Choose how MuJoCo renders, before MuJoCo is imported: EGL on a GPU, else OSMesa, else EGL in software."""

import ctypes
import os
import sys
from pathlib import Path

_LIBRARIES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
_GPU_FILES = ("/dev/nvidia0", "/dev/dri/renderD128")
_EGL_PLATFORM_DEVICE = 0x313F


def use() -> str:
    """Set MUJOCO_GL if neither the user nor an earlier import of MuJoCo has, and return its value.

    Child processes inherit the choice. Raises ImportError when no rendering library can be loaded.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen or "mujoco" in sys.modules:
        return chosen or "default"
    os.environ["MUJOCO_GL"] = choice = _choose()
    # Pictures of 64 pixels are too small to share among rasteriser threads: handing them over costs more than it saves.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    return choice


def _choose() -> str:
    if any(Path(file).exists() for file in _GPU_FILES) and _egl_works():
        return "egl"
    if _load("osmesa") is not None:
        return "osmesa"
    if _egl_works():
        return "egl"
    raise ImportError(
        "envs/tabletop renders with OSMesa or EGL and found neither library; "
        "install one with: apt-get install libosmesa6 libegl1"
    )


def _load(name: str) -> ctypes.CDLL | None:
    for file in _LIBRARIES[name]:
        try:
            return ctypes.CDLL(file)
        except OSError:
            continue
    return None


def _egl_works() -> bool:
    """Whether one EGL device can be initialised: a library without a driver loads and then cannot draw."""
    library = _load("egl")
    if library is None:
        return False
    library.eglGetProcAddress.restype = ctypes.c_void_p
    query = library.eglGetProcAddress(b"eglQueryDevicesEXT")
    display = library.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not display:
        return False
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int()
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query)(
        16, ctypes.addressof(devices), ctypes.addressof(count)
    )
    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(display)
    library.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    displays = (get(_EGL_PLATFORM_DEVICE, device, None) for device in devices[: count.value])
    return any(shown and library.eglInitialize(shown, None, None) for shown in displays)
