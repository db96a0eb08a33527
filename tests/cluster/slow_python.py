"""A Python whose trainings do not end within the time limit of their job's first start, however fast the machine is.

It is called as ``python -m longflow.cli.NAME ...`` by a batch script. Steps of a first start take a second more each;
after a restart, and in other commands, nothing is changed.
"""

import os
import runpy
import sys
import time

from longflow.training import loop


def slow_step(run, batch, step=loop.train_step):
    time.sleep(1)
    return step(run, batch)


if __name__ == "__main__":
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        loop.train_step = slow_step
    _, _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
