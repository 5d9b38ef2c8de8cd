"""The report of a run: one HTML page that needs nothing else.

records: a run's files. measure: what its network does on test images. gather: both, as what is
shown. svg, figures: how that is drawn. page: the HTML.
"""

from .write import write_report

__all__ = ["write_report"]
