"""Says how many plain series there are, and that there are too many."""

from collections.abc import Iterable

import structlog

from streams import metrics
from streams.core.naming import Naming
from streams.core.series import SeriesIndex
from streams.processors.slo_parts import PLAIN, Part

log = structlog.get_logger("fleetbeat.objectives")


class SeriesTeller:
    """Metrics at each save; one line in the log at the first overflow."""

    def __init__(self) -> None:
        self._said = False

    def tell(self, parts: Iterable[Part], index: SeriesIndex) -> None:
        """Of all partitions that are kept here; what was told is not told again."""
        namings = [part.tables[PLAIN].naming for part in parts]
        kept = [naming for naming in namings if naming is not None]
        named, most = sum(naming.named for naming in kept), sum(naming.most for naming in kept)
        metrics.SERIES.set(named)
        metrics.SERIES_MAX.set(most)
        overflowed = sum(map(_taken, kept))
        metrics.SERIES_OVERFLOW.inc(overflowed)
        metrics.SERIES_LEFT_OUT.inc(index.left_out)
        index.left_out = 0
        if overflowed and not self._said:
            self._said = True
            log.warning(
                "more combinations of service, endpoint, region and kind than --series-max: the events of further ones "
                "are summed in the series overflow; objectives count them as always",
                series=named,
                most=most,
                events=overflowed,
            )


def _taken(naming: Naming) -> int:
    overflowed, naming.overflowed = naming.overflowed, 0
    return overflowed
