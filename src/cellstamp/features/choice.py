"""The features that an extraction measures: small and picklable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cellstamp.errors import ConfigError
from cellstamp.features.declared import INTENSITY, OF_FUNCTIONS, SHAPE, TEXTURE, Feature, declared_features


@dataclass(frozen=True)
class FeatureChoice:
    """Features to measure.

    Attributes
    ----------
    groups
        Groups of declared features.
    masks
        What the masks are: ``("nucleus", "cell")`` or one of them.
    channels
        Names of the channels.
    functions
        Dotted paths of functions.
    names
        For each function, the names that it returns; empty before they are known.
    """

    groups: tuple[str, ...]
    masks: tuple[str, ...]
    channels: tuple[str, ...]
    functions: tuple[str, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()

    @property
    def shapes(self) -> bool:
        """Return whether shapes are measured."""
        return SHAPE in self.groups

    @property
    def intensities(self) -> bool:
        """Return whether intensities are measured."""
        return INTENSITY in self.groups

    @property
    def textures(self) -> bool:
        """Return whether textures are measured."""
        return TEXTURE in self.groups

    @property
    def features(self) -> tuple[Feature, ...]:
        """Return all features, in the order of their values.

        Raises
        ------
        ConfigError
            If two have the same name.
        """
        declared = declared_features(self.groups, self.masks, self.channels)
        of_functions = tuple(Feature(name, OF_FUNCTIONS) for names in self.names for name in names)
        counts = Counter(feature.name for feature in (*declared, *of_functions))
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ConfigError(
                f"features: several are called {', '.join(repeated)}. Let functions return names that differ from each "
                "other, and from those of cellstamp"
            )
        return (*declared, *of_functions)
