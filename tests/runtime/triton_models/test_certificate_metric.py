"""The metric of the server's certificate."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.errors import ConfigError
from intaglio.triton_models import certificate_metric
from intaglio.triton_models.certificate_metric import (
    EXPIRES_VARIABLE,
    CertificateMetric,
    certificate_expiry,
)

from .metric_fakes import Family


def test_only_a_server_with_tls_has_one() -> None:
    assert certificate_expiry({}) is None
    assert certificate_expiry({EXPIRES_VARIABLE: ""}) is None
    assert certificate_expiry({EXPIRES_VARIABLE: "1796044968"}) == 1796044968.0


@pytest.mark.parametrize("text", ["soon", "nan", "inf", "2027-01-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{EXPIRES_VARIABLE}: '{text}'; allowed: seconds since the epoch"):
        certificate_expiry({EXPIRES_VARIABLE: text})


def test_it_counts_down_by_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    shown: list[float] = []
    pb: Any = SimpleNamespace(MetricFamily=Family)
    metric = CertificateMetric(pb, now + 150.0)
    monkeypatch.setattr(metric._metrics, "set", lambda name, value: shown.append(value))
    for passed in (0.0, 20.0, 40.0, 100.0, 160.0, 300.0):
        moment = now + passed
        monkeypatch.setattr(certificate_metric, "time", SimpleNamespace(time=lambda moment=moment: moment))
        metric.report()
    assert shown == [120.0, 120.0, 60.0, 0.0, -60.0, -180.0]
