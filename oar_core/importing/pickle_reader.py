"""A pickled checkpoint as a safetensors file, read where it can do no harm.

A pickle is a program. torch's `weights_only` runs none of it but what makes tensors, and this runs in a process of its
own, whose memory and processor time are bounded: a small file that unpacks to a large one ends that process alone.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from oar_core.errors import WeightsError

WRAPPERS = ("model", "module", "state_dict")  # entries below which projects keep the weights
MAX_DEPTH = 3  # of them in each other
SPARE_BYTES = 1 << 30  # beside what the file itself can need
CPU_SECONDS = 1800
REFUSED = 3  # exit code: the file is at fault, and stdout says how
# How torch names what a pickle calls for and `weights_only` does not call.
GLOBAL = re.compile(r"(?:GLOBAL|Unsupported class) ([\w.]+\.\w+)")
PAGE = resource.getpagesize()


def pickle_to_safetensors(source: Path, target: Path, first: str = "") -> None:
    """`first` is an entry that is taken before the usual ones. Raises WeightsError."""
    command = [sys.executable, "-m", "oar_core.importing.pickle_reader", str(source), str(target)]
    command += [first] if first else []
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if ended.returncode == 0:
        return
    if ended.returncode == REFUSED:
        raise WeightsError(f"{source.name} {json.loads(ended.stdout)}")
    why = "was stopped" if ended.returncode < 0 else _last_line(ended.stderr)
    raise WeightsError(f"{source.name} cannot be read: the process that read it {why}")


def _last_line(text: str) -> str:
    return "ended with: " + (text.strip().splitlines() or ["nothing"])[-1]


# what the child runs


class Refusal(Exception):
    """A fault of the file, as the rest of a sentence that its name begins."""


def write_tensors(source: Path, target: Path, first: str = "") -> int:
    import torch  # before the bound: its libraries take addresses too

    _bound_memory(3 * source.stat().st_size + SPARE_BYTES)
    try:
        tensors = _tensors(_load(source, torch), first)
        _save(tensors, target)
    except Refusal as error:
        sys.stdout.write(json.dumps(str(error)))
        return REFUSED
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "memory" not in text and "mmap" not in text:
            raise
        sys.stdout.write(json.dumps("unpacks to more memory than a file of its size may take"))
        return REFUSED
    return 0


def _bound_memory(more: int) -> None:
    taken = (
        int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * PAGE if sys.platform == "linux" else 0
    )
    for kind, limit in (
        (resource.RLIMIT_AS, taken + more),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (least, least))


def _load(source: Path, torch: Any) -> Any:
    import pickle

    is_zip = zipfile.is_zipfile(source)
    try:
        # Training scripts keep their command line beside the weights; a Namespace is a plain holder of names.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise Refusal(_pickle_sentence(str(error))) from error
    except (EOFError, OSError, KeyError, ValueError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise Refusal(f"is broken, or only a part of a checkpoint ({type(error).__name__})") from error
    except RuntimeError as error:
        if "memory" in str(error) or "mmap" in str(error):
            raise
        raise Refusal(f"is broken, or only a part of a checkpoint ({str(error).splitlines()[0][:200]})") from error


def _pickle_sentence(text: str) -> str:
    named = GLOBAL.search(text)
    if named is not None:
        return (
            f"wants to run {named[1]}, which is no tensor: it is not read. Where you trust it, save its tensors as"
            " safetensors and import that"
        )
    return "is broken, or no checkpoint of tensors"


def _tensors(found: Any, first: str) -> dict[str, Any]:
    """The dictionary of tensors, wherever a project keeps it. Raises Refusal."""
    import torch

    wrappers = (first, *WRAPPERS) if first else WRAPPERS
    for _ in range(MAX_DEPTH):
        if not isinstance(found, Mapping):
            break
        entries = cast("Mapping[Any, Any]", found)
        inner = next((entries[name] for name in wrappers if isinstance(entries.get(name), Mapping)), None)
        if inner is None:
            tensors = {str(key): value for key, value in entries.items() if isinstance(value, torch.Tensor)}
            if tensors:
                return tensors
            break
        found = inner
    raise Refusal(f"holds no tensors: neither by itself nor below {', '.join(wrappers)}")


def _save(tensors: Mapping[str, Any], target: Path) -> None:
    from safetensors.torch import save_file

    strange = next((name for name, tensor in tensors.items() if tensor.is_sparse or tensor.is_quantized), None)
    if strange is not None:
        raise Refusal(f"holds {strange} as a sparse or quantized tensor; plain ones are needed")
    # Tensors that share memory, as tied weights do, or that are views, are stored each for itself.
    seen: set[int] = set()
    plain: dict[str, Any] = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        whole = tensor.is_contiguous() and tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        plain[name] = tensor if whole and address not in seen else tensor.detach().contiguous().clone()
        seen.add(address)
    save_file(plain, target)


if __name__ == "__main__":
    sys.exit(write_tensors(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
