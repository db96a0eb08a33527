"""Whether a volume can be held in memory; asked before any of it is read or made."""

from longflow.errors import file_error
from longflow.parallel import free_memory


def check_memory(needed: int, file: object, found: str) -> None:
    """Refuse a volume that this machine cannot hold.

    :param needed: bytes.
    :param file: the file in the message.
    :param found: the volume in the message, as "4000 x 4000 x 4000 voxels".
    :raises FileError: fewer bytes are free.
    """
    free = free_memory()
    if needed > free:
        found = f"{found}, which need {needed / 1e9:.3g} GB of memory"
        advice = "Check the size and the spacing in its header. If they are right, use a machine with more memory."
        raise file_error(file, "size", found, f"at most {free / 1e9:.3g} GB, which are free here", advice)
