"""How jobs are dealt out to worker processes."""
from d3ad.infra.parallel import bundles


def jobs(**counts):
    return [(run, number) for run, count in counts.items() for number in range(count)]


def test_jobs_of_a_run_stand_together_as_far_as_that_keeps_all_workers_busy():
    assert bundles(jobs(a=2, b=2), 2) == [jobs(a=2), jobs(b=2)]
    *whole, first, second = bundles(jobs(a=4, b=4, c=4), 2)
    assert whole == [jobs(a=4), jobs(b=4)] and first == jobs(c=4)[:2] and second == jobs(c=4)[2:]


def test_a_run_alone_is_shared_out():
    assert bundles(jobs(a=3), 2) == [[("a", 0)], [("a", 1), ("a", 2)]]
    assert bundles(jobs(a=1), 4) == [[("a", 0)]]


def test_every_job_is_dealt_out_once():
    for workers in (1, 2, 3, 8):
        wanted = jobs(a=5, b=1, c=3, d=2, e=7)
        dealt = [job for bundle in bundles(wanted, workers) for job in bundle]
        assert sorted(dealt) == sorted(wanted)
