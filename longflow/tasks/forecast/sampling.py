"""Several futures of a subject: what they differ by, what each draws, their mean and their standard deviation.

Sample k depends on the seed and on k alone: more samples leave the first ones as they are. All are made from
the same prepared scans.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.images import Volume, write_volume
from longflow.errors import ConfigurationError, DataError, unknown_name
from longflow.inference.models import LoadedMember, Models, solver_settings
from longflow.inference.windows import WindowSettings
from longflow.preprocessing.prepared import PreparedSeries

#: what samples can differ by
FOLDS, NOISE, CONTEXT = SOURCES = ("folds", "noise", "context")


@dataclass(frozen=True)
class TakenScans:
    """What one member takes of the scans that are given.

    :param prepared: in the normal form.
    :param contexts: positions in ``prepared`` for each forecast to average.
    """

    prepared: PreparedSeries
    contexts: list[list[int]]

    def subset(self, seed: Sequence[int]) -> "TakenScans":
        """Draw one context from the scans that are taken: half as many as a forecast has, or more, with the last one.

        :param seed: of the draw.
        """
        taken, most = sorted({position for one in self.contexts for position in one}), max(map(len, self.contexts))
        generator = np.random.default_rng(seed)
        size = int(generator.integers(math.ceil(most / 2), most + 1))
        earlier = generator.choice(taken[:-1], size - 1, replace=False)
        return replace(self, contexts=[sorted([*map(int, earlier), taken[-1]])])


@dataclass(frozen=True)
class Draw:
    """What one forecast is made with; without draws it is the ordinary one.

    :param network: position among the networks (folds) of all members; None: the mean of all.
    :param noise: seed of the field of noise that flows begin with; None: they begin with the context.
    :param context: seed of the scans that are taken; None: those of the context rule.
    """

    network: int | None = None
    noise: tuple[int, ...] | None = None
    context: tuple[int, ...] | None = None

    def members(
        self, members: Sequence[LoadedMember], scans: Sequence[TakenScans]
    ) -> list[tuple[LoadedMember, TakenScans]]:
        """Return the members that forecast, with their scans.

        :param members: of the model.
        :param scans: of each of them.
        """
        pairs = list(zip(members, scans, strict=True))
        if self.network is not None:
            single = [(replace(one, methods=[method]), taken) for one, taken in pairs for method in one.methods]
            pairs = [single[self.network]]
        return pairs if self.context is None else [(one, taken.subset(self.context)) for one, taken in pairs]

    def windows(self, settings: WindowSettings, member: LoadedMember) -> WindowSettings:
        """Return the settings of a member with the noise of this draw."""
        if self.noise is None or not _is_stochastic(member):
            return settings
        return replace(settings, noise=True, seed=self.noise)


@dataclass(frozen=True)
class Sampling:
    """How the samples of a forecast are drawn.

    :param number: of samples, at least 2.
    :param sources: what they differ by, of ``SOURCES``.
    :param networks: of all members together.
    :param sigma: of the noise at the source of a flow, as in training; None: the samples do not differ by it.
    """

    number: int
    seed: int
    sources: tuple[str, ...]
    networks: int
    sigma: float | None = None

    @classmethod
    def of(cls, models: Models, number: int, spread: Sequence[str] | None = None, seed: int = 0) -> "Sampling":
        """Check what is requested against what a model has.

        :param number: of samples.
        :param spread: sources; None: all that the model has.
        :param seed: of noise and contexts, at least 0.
        :raises LongflowError: a source is unknown or the model does not have it, or samples would not differ.
        """
        if number < 2:
            raise ConfigurationError(
                f"--samples is {number}, expected 2 or more: one forecast has no spread. For one forecast, remove it."
            )
        if seed < 0:
            raise ConfigurationError(f"--seed is {seed}, expected 0 or more.")
        for name in spread or ():
            if name not in SOURCES:
                raise unknown_name("source of spread", name, SOURCES)
        missing = missing_sources(models)
        sources = tuple(name for name in SOURCES if (name not in missing if spread is None else name in spread))
        model = models.members[0].member.model.folder.name
        if refused := [missing[name] for name in sources if name in missing]:
            raise ConfigurationError(f"Samples of {model} cannot differ by this source. {' '.join(refused)}")
        if not sources:
            raise ConfigurationError(f"Samples of {model} would all be alike. {' '.join(missing.values())}")
        networks = sum(len(member.methods) for member in models.members)
        if sources == (FOLDS,) and number > networks:
            raise ConfigurationError(
                f"Folds alone give {networks} different samples, since the model has {networks} networks; requested "
                f"are {number}. Give --samples {networks}, or a further source of spread."
            )
        sigma = None
        if NOISE in sources:
            stochastic = [member for member in models.members if _is_stochastic(member)]
            check_steps(stochastic)
            sigma = max(float(one.methods[0].options.get("source_noise", 0)) for one in stochastic) or None
        return cls(number, seed, sources, networks, sigma)

    def draw(self, number: int) -> Draw:
        """Return what a sample draws. :param number: of the sample, from 0."""
        return Draw(
            number % self.networks if FOLDS in self.sources else None,
            (self.seed, number) if NOISE in self.sources else None,
            (self.seed, number, 1) if CONTEXT in self.sources else None,
        )

    def record(self) -> dict[str, Any]:
        """Return the fields of the sidecar."""
        return {"number": self.number, "sources": list(self.sources), "seed": self.seed, "sigma": self.sigma}

    def __str__(self) -> str:
        words = {
            FOLDS: f"folds ({self.networks} networks, one for each sample)",
            NOISE: f"noise (at the source{f', sigma {self.sigma:g}' if self.sigma else ''})",
            CONTEXT: "context (subsets of the scans)",
        }
        return (
            f"{self.number} samples of each forecast. They differ by: {', '.join(words[one] for one in self.sources)}"
        )

    def check(self, scans: Sequence[TakenScans], subject: str) -> list[str]:
        """Compare the sources with the scans of a subject.

        :param scans: of each member.
        :returns: warnings.
        :raises DataError: the samples would be alike.
        """
        if CONTEXT not in self.sources or max(len(one) for taken in scans for one in taken.contexts) > 1:
            return []
        if self.sources == (CONTEXT,):
            raise DataError(f"{subject} has one context scan, so there are no subsets of them that samples differ by.")
        others = " and ".join(name for name in self.sources if name != CONTEXT)
        return [f"{subject} has one context scan: its samples differ by {others} alone."]


def missing_sources(models: Models) -> dict[str, str]:
    """Return the sources that a model does not have, each with the reason and the remedy as sentences."""
    methods = [member.methods[0] for member in models.members]
    missing = {}
    if sum(len(member.methods) for member in models.members) < 2:
        missing[FOLDS] = "folds: it has one network. Train further folds, and name them with -f."
    if not any(map(_is_stochastic, models.members)):
        missing[NOISE] = (
            "noise: it was trained with sigma 0 at the source. Train a flow with longflow_train --set source_noise=0.1 "
            "(the option 'noise' is noise along the path, which gives no spread), or latent_diffusion."
        )
    if not any(method.sees_earlier_scans and method.most_scans > 1 for method in methods):
        missing[CONTEXT] = "context: it forecasts from the last scan alone."
    return missing


def check_steps(members: Iterable[LoadedMember]) -> None:
    """Refuse to integrate noise in one evaluation: the mean velocity takes all of it away.

    :raises ConfigurationError: the solver evaluates the network once.
    """
    for member in members:
        found = solver_settings(member.methods[0])
        if found["function_evaluations"] == 1:
            raise ConfigurationError(
                f"The solver {found['solver']} with {found['steps']} step evaluates the network once. Then the noise "
                "at the source cancels, and samples do not differ by it. Give more, as --steps 10."
            )


def _is_stochastic(member: LoadedMember) -> bool:
    return all(method.stochastic for method in member.methods)


class Moments:
    """Mean and standard deviation of volumes that come one by one (Welford 1962); two volumes are in memory."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self._squares = np.zeros(1)

    def add(self, volume: np.ndarray) -> None:
        """Add a volume; all have one shape."""
        if not self.count:
            self.mean, self._squares = (np.zeros(volume.shape) for _ in range(2))
        self.count += 1
        change = volume - self.mean
        self.mean += change / self.count
        self._squares += change * (volume - self.mean)

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation, with n - 1; of two volumes or more."""
        return np.sqrt(self._squares / (self.count - 1))


def collect_samples(
    make: Callable[[int], np.ndarray], like: Volume, files: Sequence[tuple[Path, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Make samples one after the other; write each while the next one is made. Those of an earlier command are removed.

    :param make: makes the sample of a number, (channels, z, y, x).
    :param like: with their grid and type.
    :param files: of each sample, in a folder of their own.
    :returns: mean and standard deviation, float32.
    """
    for path in files[0][0].parent.glob("[!.]*"):
        path.unlink()  # there may have been more of them

    def write(sample: np.ndarray, paths: tuple[Path, ...]) -> None:
        for array, path in zip(sample, paths, strict=True):
            write_volume(array, like.geometry, like.data_type, path)

    moments = Moments()
    with ThreadPoolExecutor(1) as writer:
        behind = writer.submit(lambda: None)
        for number, paths in enumerate(files):
            sample = make(number)
            moments.add(sample)
            behind.result()
            behind = writer.submit(write, sample, paths)
        behind.result()
    return moments.mean.astype(np.float32), moments.deviation.astype(np.float32)
