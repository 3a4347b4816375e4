"""The Kubernetes launcher against an API server of a few endpoints, through the official client."""

import time
from datetime import UTC, datetime

import pytest
from kubernetes import client

from data_contracts.errors import InputError
from jobs.runner.stopping import STATUS_STOPPED
from orchestration.launching.interface import JobPhase, LaunchFailed
from orchestration.launching.kubernetes.api import RETRIES, ClusterApi
from orchestration.launching.kubernetes.launcher import KubernetesLauncher
from orchestration.launching.kubernetes.status import newest_pods
from tests.orchestration.launching.kubernetes_orders import TWO_NODES, order, settings
from tests.services.kubernetes import NAMESPACE, FakeCluster, fake_cluster

LONG_AGO = "2024-05-01T00:00:00Z"


@pytest.fixture(scope="module")
def served():
    with fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(served: FakeCluster):
    served.objects.clear()
    served.logs.clear()
    served.refusals.clear()
    served.requests.clear()
    served.keeps_deleted = False
    served.put("services", {"metadata": {"name": "alto-jobs"}})
    return served


def launcher_of(cluster: FakeCluster, root, **changes) -> KubernetesLauncher:
    chosen = settings(root, **changes)
    api = ClusterApi(cluster.api_client(), NAMESPACE, chosen.several_nodes == "pytorch_job")
    return KubernetesLauncher(root, chosen, api)


@pytest.fixture
def launcher(cluster, tmp_path):
    return launcher_of(cluster, tmp_path)


def looked_at(launcher, handle):
    """The status as of now, and not of the last look."""
    time.sleep(launcher.settings.seconds_between_looks)
    return launcher.status(handle)


def running(cluster, launcher, **changes):
    """A job whose pods run."""
    ordered = order(launcher.root, **changes)
    handle = launcher.submit(ordered)
    pods = cluster.add_pods(handle.name, tuple(range(ordered.spec.needs.nodes)))
    for index, pod in enumerate(pods):
        cluster.run(pod, f"gpu-{index}")
    return handle, pods


def test_job_from_submission_to_success(cluster, launcher, tmp_path):
    ordered = order(tmp_path)
    handle = launcher.submit(ordered)
    assert (handle.name, handle.work) == (ordered.name, ordered.spec.work)
    assert looked_at(launcher, handle).phase is JobPhase.PENDING
    (pod,) = cluster.add_pods(handle.name)
    cluster.run(pod, "gpu-3")
    status = looked_at(launcher, handle)
    assert (status.phase, status.nodes) == (JobPhase.RUNNING, "gpu-3")
    cluster.end(pod, 0)
    status = looked_at(launcher, handle)
    assert (status.phase, status.exit_code) == (JobPhase.SUCCEEDED, 0)


def test_job_of_several_nodes(cluster, launcher):
    handle, _ = running(cluster, launcher, **TWO_NODES)
    assert looked_at(launcher, handle).nodes == "gpu-0,gpu-1"


def test_several_nodes_without_the_service_to_meet_are_refused(cluster, launcher, tmp_path):
    cluster.kind("services").clear()
    with pytest.raises(InputError, match="need the Service alto-jobs"):
        launcher.submit(order(tmp_path, **TWO_NODES))
    assert not cluster.kind("jobs")


def test_job_waits_for_all_its_nodes(cluster, launcher, tmp_path):
    handle = launcher.submit(order(tmp_path, **TWO_NODES))
    first, second = cluster.add_pods(handle.name, (0, 1))
    cluster.run(first)
    cluster.unschedulable(second, "0/9 nodes are available: 9 Insufficient nvidia.com/gpu.")
    status = looked_at(launcher, handle)
    assert status.phase is JobPhase.PENDING
    assert "9 Insufficient nvidia.com/gpu" in status.reason


def test_later_run_finds_a_live_job_and_no_other(cluster, launcher, tmp_path):
    handle, (pod,) = running(cluster, launcher)
    later = launcher_of(cluster, tmp_path)
    assert later.find(handle.name) == handle
    assert later.jobs() == [handle]
    assert later.submit(order(tmp_path)) == handle  # already there: attached
    assert len(cluster.kind("jobs")) == 1
    cluster.end(pod, 0)
    assert later.find(handle.name) is None
    assert later.jobs() == []


def test_job_of_another_work_tree_is_left_alone(cluster, launcher, tmp_path):
    handle, _ = running(cluster, launcher)
    other = launcher_of(cluster, tmp_path / "other", volumes=[{"claim": "alto-work", "path": str(tmp_path)}])
    assert other.find(handle.name) is None
    assert other.jobs() == []
    with pytest.raises(LaunchFailed, match="another work tree's job"):
        other.submit(order(tmp_path))


def test_what_an_ended_job_left_makes_way(cluster, launcher, tmp_path):
    handle, (pod,) = running(cluster, launcher)
    cluster.end(pod, 1)
    again = launcher.submit(order(tmp_path))
    assert again.name == handle.name
    assert again.id != handle.id
    assert not cluster.kind("pods")
    assert looked_at(launcher, handle).phase is JobPhase.CANCELLED
    assert looked_at(launcher, again).phase is JobPhase.PENDING


def test_submission_waits_until_the_pods_of_a_cancelled_job_have_ended(cluster, launcher, tmp_path):
    cluster.keeps_deleted = True
    handle, _ = running(cluster, launcher)
    launcher.cancel(handle)
    status = looked_at(launcher, handle)
    assert (status.phase, status.reason) == (JobPhase.RUNNING, "is being ended")
    assert launcher.find(handle.name) is None
    impatient = launcher_of(cluster, tmp_path, checkpoint_seconds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestration.launching.kubernetes.launcher.SECONDS_TO_REMOVE", -1.0)
        with pytest.raises(LaunchFailed, match="does not end"):
            impatient.submit(order(tmp_path))
    cluster.remove("jobs", handle.name)
    assert launcher.submit(order(tmp_path)).id != handle.id


def test_cancelled_job_is_gone(cluster, launcher):
    handle, _ = running(cluster, launcher)
    launcher.cancel(handle)
    assert looked_at(launcher, handle).phase is JobPhase.CANCELLED
    launcher.cancel(handle)  # nothing more happens


def test_cancelling_spares_a_later_job_of_the_name(cluster, launcher, tmp_path):
    handle, (pod,) = running(cluster, launcher)
    cluster.end(pod, 1)
    again = launcher.submit(order(tmp_path))
    launcher.cancel(handle)
    assert launcher.find(again.name) == again


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"]
)
def test_container_that_cannot_start_is_given_up_after_a_while(cluster, launcher, tmp_path, reason):
    handle = launcher.submit(order(tmp_path))
    (pod,) = cluster.add_pods(handle.name)
    cluster.waiting(pod, reason, "failed to pull and unpack image\nnot found")
    status = looked_at(launcher, handle)
    assert (status.phase, status.reason) == (
        JobPhase.PENDING,
        f"cannot start: {reason}: failed to pull and unpack image not found",
    )
    cluster.waiting(pod, reason, "not found", since=LONG_AGO)
    status = looked_at(launcher, handle)
    assert status.phase is JobPhase.FAILED
    assert reason in status.reason
    assert not cluster.kind("jobs")  # it would try for ever


def test_starting_container_is_not_given_up(cluster, launcher, tmp_path):
    handle = launcher.submit(order(tmp_path))
    (pod,) = cluster.add_pods(handle.name)
    cluster.waiting(pod, "ContainerCreating", since=LONG_AGO)  # a large image on a slow network
    assert looked_at(launcher, handle).phase is JobPhase.PENDING


def test_unschedulable_pod_is_reported_while_it_waits(cluster, launcher, tmp_path):
    handle = launcher.submit(order(tmp_path))
    (pod,) = cluster.add_pods(handle.name)
    cluster.unschedulable(pod, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    status = looked_at(launcher, handle)
    assert status.phase is JobPhase.PENDING
    assert status.reason.startswith("cannot be placed on a node: 0/3 nodes are available")


def test_quota_that_keeps_pods_from_being_made_is_reported(cluster, launcher, tmp_path):
    handle = launcher.submit(order(tmp_path))
    cluster.warn(handle.id, "FailedCreate", "exceeded quota: gpus, requested: requests.nvidia.com/gpu=8")
    assert looked_at(launcher, handle).reason.startswith("FailedCreate: exceeded quota")


def test_queued_job_says_so(cluster, launcher, tmp_path):
    handle = launcher.submit(order(tmp_path))
    cluster.job_condition(handle.name, "Suspended", "JobSuspended", "Job suspended")
    status = looked_at(launcher, handle)
    assert (status.phase, status.reason) == (JobPhase.PENDING, "waits in a queue: Job suspended")


def test_preempted_pod_of_one_node_is_replaced(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    cluster.disrupt(pod, "PreemptionByScheduler", "preempting to accommodate a higher priority pod")
    assert looked_at(launcher, handle).phase is JobPhase.PENDING
    second = next(name for name in cluster.kind("pods") if name != pod)
    cluster.run(second, "gpu-9")
    assert looked_at(launcher, handle).nodes == "gpu-9"
    cluster.end(second, 1)
    status = looked_at(launcher, handle)
    assert (status.phase, status.exit_code) == (
        JobPhase.FAILED,
        1,
    )  # its own failure, not the disruption before


def test_job_that_was_asked_to_stop_goes_on_in_another_pod(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    cluster.end(pod, STATUS_STOPPED, pod_reason="DeadlineExceeded")
    assert looked_at(launcher, handle).phase is JobPhase.PENDING
    assert len(cluster.kind("pods")) == 2


def test_job_of_several_nodes_that_was_asked_to_stop_has_to_be_submitted_anew(cluster, launcher):
    handle, (first, _) = running(cluster, launcher, **TWO_NODES)
    cluster.end(first, STATUS_STOPPED)
    status = looked_at(launcher, handle)
    assert status.phase is JobPhase.PREEMPTED
    assert "goes on later" in status.reason


@pytest.mark.parametrize(
    ("disruption", "phase"),
    [
        ("PreemptionByScheduler", JobPhase.PREEMPTED),
        ("EvictionByEvictionAPI", JobPhase.PREEMPTED),
        ("TerminationByKubelet", JobPhase.PREEMPTED),
        ("DeletionByTaintManager", JobPhase.NODE_FAILED),
        ("DeletionByPodGC", JobPhase.NODE_FAILED),
    ],
)
def test_disruption_of_one_of_several_nodes_ends_the_job(cluster, launcher, disruption, phase):
    handle, (first, second) = running(cluster, launcher, **TWO_NODES)
    cluster.disrupt(second, disruption, "said by the cluster")
    cluster.end(first, 1)  # NCCL lost its peer
    status = looked_at(launcher, handle)
    assert status.phase is phase
    assert second in status.reason
    assert disruption in status.reason


def test_disrupted_pod_that_is_gone_is_known_from_the_job(cluster, launcher):
    handle, (_, second) = running(cluster, launcher, **TWO_NODES)
    cluster.disrupt(second, "EvictionByEvictionAPI")
    cluster.kind("pods").clear()
    assert looked_at(launcher, handle).phase is JobPhase.PREEMPTED


@pytest.mark.parametrize(
    ("end", "phase", "reason"),
    [
        ({"exit_code": 137, "reason": "OOMKilled"}, JobPhase.OUT_OF_MEMORY, "more memory than its limit"),
        ({"exit_code": 137}, JobPhase.FAILED, "ended with status 137"),
        ({"exit_code": 2}, JobPhase.FAILED, "ended with status 2"),
        (
            {
                "exit_code": 143,
                "pod_reason": "DeadlineExceeded",
                "message": "Pod was active on the node too long",
            },
            JobPhase.TIMED_OUT,
            "DeadlineExceeded",
        ),
        (
            {"exit_code": 137, "pod_reason": "Evicted", "message": "The node was low on resource: memory."},
            JobPhase.PREEMPTED,
            "low on resource: memory",
        ),
        (
            {
                "exit_code": 137,
                "pod_reason": "Evicted",
                "message": 'Usage of EmptyDir volume "scratch" exceeds the limit',
            },
            JobPhase.FAILED,
            "exceeds the limit",
        ),
        (
            {
                "exit_code": 1,
                "pod_reason": "UnexpectedAdmissionError",
                "message": "Allocate failed due to no healthy devices",
            },
            JobPhase.NODE_FAILED,
            "no healthy devices",
        ),
    ],
)
def test_how_a_pod_ended(cluster, launcher, end, phase, reason):
    handle, (pod,) = running(cluster, launcher)
    cluster.end(pod, **end)
    status = looked_at(launcher, handle)
    assert status.phase is phase
    assert reason in status.reason
    assert pod in status.reason
    assert status.exit_code == end["exit_code"]


def test_deadline_of_the_job_itself(cluster, launcher, tmp_path):
    handle = launcher.submit(order(tmp_path))
    cluster.job_condition(
        handle.name, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    )
    assert looked_at(launcher, handle).phase is JobPhase.TIMED_OUT


def test_progress_bar_is_one_line(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    cluster.write(pod, "Training: 50%\rTraining: 100%\n")
    looked_at(launcher, handle)
    assert launcher.log(handle, 0) == b"Training: 50%\rTraining: 100%\n"


def test_what_the_cluster_says_of_a_log_is_not_in_it(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    cluster.write(pod, "retrieve container logs for containerd://0\n", "unable to")
    cluster.write(pod, "first\n")
    looked_at(launcher, handle)
    assert launcher.log(handle, 0) == b"first\n"


def test_log_grows_line_by_line(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    looked_at(launcher, handle)
    cluster.write(pod, "first\n")
    cluster.write(pod, "half a")  # no end of line yet
    looked_at(launcher, handle)
    assert launcher.log(handle, 0) == b"first\n"
    cluster.logs[pod][-1] = (cluster.logs[pod][-1][0], "half a line\n")
    cluster.write(pod, "third\n")
    looked_at(launcher, handle)
    assert launcher.log(handle, len(b"first\n")) == b"half a line\nthird\n"


def test_lines_of_one_moment_are_told_apart(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    moment = "2031-01-01T00:00:00.12Z"
    for line in ("a\n", "b\n"):
        cluster.write(pod, line, moment)
    looked_at(launcher, handle)
    cluster.write(pod, "c\n", moment)
    cluster.write(pod, "d\n", "2031-01-01T00:00:00.120000001Z")
    looked_at(launcher, handle)
    assert launcher.log(handle, 0) == b"a\nb\nc\nd\n"


def test_log_of_all_pods_and_of_replaced_ones(cluster, launcher, tmp_path):
    handle, (first, second) = running(cluster, launcher, **TWO_NODES)
    cluster.write(first, "rank 0\n")
    cluster.write(second, "rank 8\n")
    looked_at(launcher, handle)
    del cluster.kind("pods")[second]
    cluster.write(first, "more\n")
    later = launcher_of(cluster, tmp_path)  # another process goes on
    looked_at(later, handle)
    assert later.log(handle, 0) == b"rank 0\n[node 1] rank 8\nmore\n"


def test_last_lines_are_there_when_the_job_is_over(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    looked_at(launcher, handle)
    cluster.write(pod, "Traceback\n")
    cluster.end(pod, 1)
    assert looked_at(launcher, handle).phase is JobPhase.FAILED
    assert launcher.log(handle, 0) == b"Traceback\n"


def test_job_is_not_asked_for_more_often_than_set(cluster, tmp_path):
    patient = launcher_of(cluster, tmp_path, seconds_between_looks=60)
    handle = patient.submit(order(tmp_path))
    asked = len(cluster.requests)
    patient.status(handle)
    first_look = len(cluster.requests)
    assert first_look > asked
    patient.status(handle)
    assert len(cluster.requests) == first_look


def test_cluster_that_is_away_for_a_while_loses_nothing(cluster, launcher):
    handle, (pod,) = running(cluster, launcher)
    cluster.stop()
    status = looked_at(launcher, handle)
    assert (status.phase, "does not answer" in status.reason) == (JobPhase.UNKNOWN, True)
    with pytest.raises(LaunchFailed, match="does not answer"):
        launcher.find(handle.name)
    with pytest.raises(LaunchFailed, match="is not cancelled"):
        launcher.cancel(handle)
    cluster.start()
    cluster.write(pod, "went on\n")
    assert looked_at(launcher, handle).phase is JobPhase.RUNNING
    assert launcher.log(handle, 0) == b"went on\n"


@pytest.mark.parametrize("refusal", [500, 403, 429])
def test_refused_question_leaves_the_status_unknown(cluster, launcher, refusal):
    handle, _ = running(cluster, launcher)
    cluster.refusals.append(refusal)
    status = looked_at(launcher, handle)
    assert status.phase is JobPhase.UNKNOWN
    assert f"answered {refusal}: refused by the test" in status.reason
    assert looked_at(launcher, handle).phase is JobPhase.RUNNING


def test_gone_is_not_there(cluster, launcher):
    handle, _ = running(cluster, launcher)
    cluster.refusals.append(410)
    assert looked_at(launcher, handle).phase is JobPhase.CANCELLED


def test_requests_are_repeated_where_the_cluster_is_busy(cluster, tmp_path):
    configuration = cluster.api_client().configuration
    configuration.retries = RETRIES.new(backoff_factor=0.0)
    api = ClusterApi(client.ApiClient(configuration), NAMESPACE, False)
    busy = KubernetesLauncher(tmp_path, settings(tmp_path), api)
    cluster.refusals += [503, 429]
    assert busy.submit(order(tmp_path)).name in cluster.kind("jobs")


@pytest.mark.parametrize(
    ("refusal", "error"), [(403, InputError), (422, InputError), (500, LaunchFailed), (504, LaunchFailed)]
)
def test_refused_order_says_why(cluster, launcher, tmp_path, refusal, error):
    cluster.refusals.append(refusal)
    with pytest.raises(error, match=f"answered {refusal}: refused by the test"):
        launcher.submit(order(tmp_path))


def test_pytorch_job(cluster, tmp_path):
    launcher = launcher_of(cluster, tmp_path, several_nodes="pytorch_job")
    handle = launcher.submit(order(tmp_path, **TWO_NODES))
    assert handle.name in cluster.kind("pytorchjobs")
    assert launcher.find(handle.name) == handle
    assert looked_at(launcher, handle).phase is JobPhase.PENDING
    cluster.job_condition(handle.name, "Running", plural="pytorchjobs")
    message = "PyTorchJob is failed because 1 Worker replica(s) failed."
    cluster.job_condition(handle.name, "Failed", "PyTorchJobFailed", message, plural="pytorchjobs")
    status = looked_at(launcher, handle)
    assert (status.phase, "1 Worker replica(s) failed" in status.reason) == (JobPhase.FAILED, True)
    assert launcher.jobs() == []
    again = launcher.submit(order(tmp_path, **TWO_NODES))
    launcher.cancel(again)
    assert not cluster.kind("pytorchjobs")


def test_pods_of_a_pytorch_job_are_told_apart():
    names = [("worker", "1"), ("master", "0"), ("worker", "0")]
    pods = [
        client.V1Pod(
            metadata=client.V1ObjectMeta(
                name=f"{kind}-{index}",
                creation_timestamp=datetime(2031, 1, 1, tzinfo=UTC),
                labels={
                    "training.kubeflow.org/replica-type": kind,
                    "training.kubeflow.org/replica-index": index,
                },
            )
        )
        for kind, index in names
    ]
    assert [pod.metadata.name for pod in newest_pods(pods)] == ["master-0", "worker-0", "worker-1"]


@pytest.mark.parametrize("name", ["$(touch x);..", "../../pods", "alto-", "Alto-x", "alto-x/log"])
def test_strange_names_reach_no_path(cluster, launcher, name):
    with pytest.raises(InputError, match="is no job name"):
        launcher.find(name)
    assert cluster.requests == []
