"""Every error has a status, and a message is one line."""

from __future__ import annotations

import inspect
import pickle

import pytest

from intaglio import errors
from intaglio.errors import (
    DeviceFailed,
    EngineMismatch,
    IntaglioError,
    InvalidRequest,
    LoraRefused,
    QueueFull,
    SwapFailed,
    failed_device,
    single_line,
    triton_code_of,
)


def test_every_error_is_in_the_drawing_and_mapped() -> None:
    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.IntaglioError)
    ]
    drawing = {
        words[0]: words
        for line in (errors.__doc__ or "").splitlines()
        if (words := line.strip("│├└─ ").split())
    }
    for item in classes:
        assert drawing[item.__name__][1] == item.triton_code
        assert item.__name__ in errors.__all__
    assert triton_code_of(ValueError()) == "INTERNAL"


def test_messages_are_one_line() -> None:
    error = InvalidRequest("prompt", "x\n\x1b[31m" + "y" * 10_000, allowed="a\tb")
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) <= 500
    assert str(error).endswith("; allowed: a b")
    assert single_line("a" * 20, limit=5) == "aaaa…"


def test_a_failed_card_is_found_behind_the_error_it_caused() -> None:
    lost = DeviceFailed("cudaMemcpyAsync: an illegal memory access was encountered")
    try:
        try:
            raise lost
        except DeviceFailed as error:
            raise SwapFailed("cannot apply mara") from error
    except SwapFailed as error:
        found = failed_device(error)
    assert found is lost
    assert failed_device(lost) is lost
    assert failed_device(ValueError()) is None


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("steps", "900", allowed="1 to 150"),
        EngineMismatch("unet.plan is missing", command="intaglio build a.yaml"),
        QueueFull("full", retry_after=3.0),
        LoraRefused("night", "damaged"),
    ],
)
def test_errors_cross_from_one_process_to_another(error: IntaglioError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
