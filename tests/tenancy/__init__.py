"""Nobody reaches another business: every way in, against every field that names something."""
