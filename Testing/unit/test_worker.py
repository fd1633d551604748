"""The worker's thread: jobs one after another, progress, cancelling that stops, errors that don't end it."""

import threading

import pytest

from LungNoduleKit.errors import PointError
from LungNoduleKit.scene.worker import CancelledError, Worker


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.stop()


def test_jobs_share_one_thread_and_return_results(worker):
    jobs = [worker.submit(lambda progress: threading.get_ident()) for _ in range(3)]
    assert all(job.wait(5) for job in jobs)
    threads = {job.result for job in jobs}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    assert jobs[0].share == 1.0


def test_cancelling_ends_the_job_at_its_next_step(worker):
    started, go_on, steps = threading.Event(), threading.Event(), []

    def work(progress):
        progress("first", 0.25)
        started.set()
        assert go_on.wait(5)
        progress("second", 0.5)
        steps.append("second")

    job = worker.submit(work)
    assert started.wait(5)
    assert (job.stage, job.share) == ("first", 0.25)
    job.cancel()
    go_on.set()
    assert job.wait(5)
    assert isinstance(job.error, CancelledError)
    assert steps == []
    assert job.result is None


def test_a_job_cancelled_in_its_last_step_returns_nothing(worker):
    holder, ready = [], threading.Event()

    def work(progress):
        assert ready.wait(5)
        holder[0].cancel()
        return "result"

    holder.append(worker.submit(work))
    ready.set()
    assert holder[0].wait(5)
    assert holder[0].result is None
    assert isinstance(holder[0].error, CancelledError)


def test_a_job_cancelled_before_it_starts_never_runs(worker):
    block, ran = threading.Event(), []
    first = worker.submit(lambda progress: block.wait(5))
    second = worker.submit(lambda progress: ran.append(1))
    second.cancel()
    block.set()
    assert first.wait(5)
    assert second.wait(5)
    assert ran == []


def test_an_error_is_kept_and_the_thread_lives_on(worker):
    def work(progress):
        raise PointError("point 1: no")

    job = worker.submit(work)
    assert job.wait(5)
    assert str(job.error) == "point 1: no"
    after = worker.submit(lambda progress: 7)
    assert after.wait(5)
    assert after.result == 7


def test_stopped_worker_starts_anew(worker):
    assert worker.submit(lambda progress: 1).wait(5)
    worker.stop()
    again = worker.submit(lambda progress: 2)
    assert again.wait(5)
    assert again.result == 2
