import asyncio
import threading
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.serving.batching import ModelThread
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig

RATE = 16_000


class Recorded:
    """A model that gives back each clip's first sample, when it is let go."""

    def __init__(self, *, is_held=False):
        self.batches = []
        self.released = threading.Event()
        self.entered = threading.Event()
        if not is_held:
            self.released.set()

    def __call__(self, waveforms):
        self.batches.append([len(waveform) for waveform in waveforms])
        self.entered.set()
        assert self.released.wait(30)
        return np.array([[waveform[0]] for waveform in waveforms])


def clip(value, n_samples=RATE):
    return np.full(n_samples, value, np.float32)


def started(model, **limits):
    thread = ModelThread(model, ServeConfig(**limits), Metrics())
    thread.start()
    return thread


async def ask_behind(thread, model, lengths):
    """Let clips pile up behind one that is being computed; return what each of them got."""
    first = asyncio.ensure_future(thread.predict(clip(-1), 30))
    await asyncio.to_thread(model.entered.wait, 30)
    rest = [
        asyncio.ensure_future(thread.predict(clip(value, n_samples), 30))
        for value, n_samples in enumerate(lengths)
    ]
    await asyncio.sleep(0)
    while len(thread._clips) < len(lengths):
        await asyncio.sleep(0.001)
    model.released.set()
    await first
    return [float(row[0]) for row in await asyncio.gather(*rest)]


@given(lengths=st.lists(st.integers(100, 100_000), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_everybody_gets_the_own_result_in_bounded_batches_of_like_lengths(lengths):
    model = Recorded(is_held=True)
    thread = started(model, max_batch=8, max_batch_seconds=30)
    got = asyncio.run(ask_behind(thread, model, lengths))
    thread.stop()
    assert got == list(range(len(lengths)))
    _, *batches = model.batches
    assert sorted(chain.from_iterable(batches)) == sorted(lengths)
    for batch in batches:
        assert len(batch) <= 8
        assert max(batch) <= 2 * min(batch)
        assert len(batch) * max(batch) <= 30 * RATE or len(batch) == 1


def test_who_has_waited_longest_is_always_in_the_next_batch():
    """A long clip among many short ones is not put off for ever."""
    model = Recorded(is_held=True)
    thread = started(model, max_batch=4)
    lengths = [RATE, 30 * RATE] + [RATE] * 20
    asyncio.run(ask_behind(thread, model, lengths))
    thread.stop()
    _, first, second, *_ = model.batches
    assert first == [RATE] * 4
    assert second == [30 * RATE]


def test_a_batch_of_one_is_no_batching():
    model = Recorded(is_held=True)
    thread = started(model, max_batch=1)
    asyncio.run(ask_behind(thread, model, [RATE] * 5))
    thread.stop()
    assert model.batches == [[RATE]] * 6


def test_other_threads_share_the_batches_and_keep_their_order():
    model = Recorded(is_held=True)
    thread = started(model)

    async def both():
        row = asyncio.ensure_future(thread.predict(clip(7), 30))
        await asyncio.to_thread(model.entered.wait, 30)
        windows = asyncio.ensure_future(
            asyncio.to_thread(thread.predict_waveforms, [clip(value) for value in (3, 1, 2)])
        )
        while len(thread._clips) < 3:
            await asyncio.sleep(0.001)
        other = asyncio.ensure_future(thread.predict(clip(9), 30))
        while len(thread._clips) < 4:
            await asyncio.sleep(0.001)
        model.released.set()
        return await row, await windows, await other

    row, windows, other = asyncio.run(both())
    thread.stop()
    assert (row[0], other[0]) == (7, 9)
    np.testing.assert_array_equal(windows[:, 0], [3, 1, 2])
    assert model.batches == [[RATE], [RATE] * 4]


def test_another_question_gets_its_answers_in_batches_of_its_own():
    model = Recorded(is_held=True)
    thread = started(model)
    asked = []

    def spell(waveforms, texts):
        asked.append([len(waveform) for waveform in waveforms])
        return [f"{text} {waveform[0]:g}" for waveform, text in zip(waveforms, texts, strict=True)]

    def ask(texts):
        return thread.ask(spell, [clip(value) for value in range(len(texts))], texts)

    async def both():
        first = asyncio.ensure_future(thread.predict(clip(7), 30))
        await asyncio.to_thread(model.entered.wait, 30)
        words = []
        for n_clips, texts in [(2, ["a", "b"]), (4, ["c", "d"])]:
            words.append(asyncio.ensure_future(asyncio.to_thread(ask, texts)))
            while len(thread._clips) < n_clips:
                await asyncio.sleep(0.001)
        other = asyncio.ensure_future(thread.predict(clip(9), 30))
        while len(thread._clips) < 5:
            await asyncio.sleep(0.001)
        model.released.set()
        return await first, await other, await asyncio.gather(*words)

    first, other, words = asyncio.run(both())
    thread.stop()
    assert (first[0], other[0]) == (7, 9)
    assert words == [["a 0", "b 1"], ["c 0", "d 1"]]
    assert asked == [[RATE] * 4], "what asks the same is not computed together"
    assert model.batches == [[RATE], [RATE]]


def test_who_has_left_is_not_computed():
    model = Recorded(is_held=True)
    thread = started(model)

    async def leave():
        first = asyncio.ensure_future(thread.predict(clip(0), 30))
        await asyncio.to_thread(model.entered.wait, 30)
        gone = asyncio.ensure_future(thread.predict(clip(1, 500), 30))
        stays = asyncio.ensure_future(thread.predict(clip(2, 700), 30))
        while len(thread._clips) < 2:
            await asyncio.sleep(0.001)
        gone.cancel()
        await asyncio.sleep(0)
        model.released.set()
        await first
        return await stays

    assert asyncio.run(leave())[0] == 2
    thread.stop()
    assert model.batches == [[RATE], [700]]


def test_an_error_reaches_all_of_its_batch_and_nobody_else():
    calls = []

    def model(waveforms):
        calls.append(len(waveforms))
        if len(calls) == 1:
            raise RuntimeError("out of luck")
        return np.zeros((len(waveforms), 1))

    thread = started(model)
    with pytest.raises(RuntimeError, match="out of luck"):
        asyncio.run(thread.predict(clip(0), 30))
    assert asyncio.run(thread.predict(clip(0), 30)).shape == (1,)
    calls.clear()
    with pytest.raises(RuntimeError, match="out of luck"):
        thread.predict_waveforms([clip(0), clip(1)])
    thread.stop()


def test_the_end_waits_for_what_is_held():
    model = Recorded(is_held=True)
    thread = started(model, max_batch=1)

    async def end():
        rows = [asyncio.ensure_future(thread.predict(clip(value), 30)) for value in range(4)]
        await asyncio.to_thread(model.entered.wait, 30)
        ending = asyncio.ensure_future(asyncio.to_thread(thread.stop))
        await asyncio.sleep(0.05)
        assert not ending.done()
        model.released.set()
        return [float(row[0]) for row in await asyncio.gather(*rows)]

    assert asyncio.run(end()) == [0, 1, 2, 3]


def test_a_full_queue_refuses_requests_but_not_what_was_let_in():
    model = Recorded(is_held=True)
    thread = started(model, max_waiting=2, retry_after=7)

    async def fill():
        held = [asyncio.ensure_future(thread.predict(clip(0), 30))]
        await asyncio.to_thread(model.entered.wait, 30)
        held += [asyncio.ensure_future(thread.predict(clip(0), 30)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as refused:
            await thread.predict(clip(0), 30)
        assert refused.value.kind == "busy"
        assert refused.value.headers == {"Retry-After": "7"}
        windows = asyncio.ensure_future(asyncio.to_thread(thread.predict_waveforms, [clip(5)]))
        while len(thread._clips) < 3:
            await asyncio.sleep(0.001)
        model.released.set()
        await asyncio.gather(*held)
        return await windows

    assert asyncio.run(fill())[0, 0] == 5
    thread.stop()
