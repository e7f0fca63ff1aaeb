"""Times, sizes and ratios as people read them."""

_TIMES = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


def quantity(value: float, unit: str, *, space: str = " ") -> str:
    """Show a time or a size with three significant figures: ``1.23 ms``, ``45.6 MB``."""
    steps = _TIMES if unit == "s" else _SIZES
    sign, value = ("-", -value) if value < 0 else ("", value)
    for name, size in steps:
        # 0.9996 would be rounded to 1000 of the smaller unit
        if value >= size * 0.9995:
            return f"{sign}{figures(value / size)}{space}{name}"
    return f"{sign}{figures(value / steps[-1][1])}{space}{steps[-1][0]}" if value else f"0{space}{unit}"


def figures(value: float) -> str:
    """Show a number with three figures."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def ratio(value: float | None) -> str:
    """Show how many times as much: ``1.23x``, ``45x``."""
    if value is None:
        return ""
    if value < 9.95:
        return f"{value:.2f}x"
    return f"{value:.0f}x" if value < 9999.5 else f"{value:.0e}x"


def short_ratio(value: float | None) -> str:
    """Show that in at most five characters: ``1.2x``, ``450x``, ``12kx``."""
    if value is None:
        return ""
    if value < 9.95:
        return f"{value:.1f}x"
    if value < 999.5:
        return f"{value:.0f}x"
    return f"{value / 1000:.0f}kx" if value < 999_500 else ">1Mx"


def percent(part: float) -> str:
    """Show a part as ``±3%``."""
    return f"±{min(part * 100, 999):.0f}%"
