"""Fixtures of this folder: runs that several tests read."""

from __future__ import annotations

from tests.made_runs import healthy, healthy_forecast, made, odd, odd_forecasts, stalled, stalled_forecast

__all__ = ["healthy", "healthy_forecast", "made", "odd", "odd_forecasts", "stalled", "stalled_forecast"]
