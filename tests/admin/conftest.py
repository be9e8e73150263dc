"""One web tier and one scripted supervisor for all tests of admin/; each test starts with an empty script."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import FakeUpstream, Handler, Serve
from signing_in import ADMIN, VIEWER, tell
from web_tier import WebTier

from admin.activity import Activity
from supervisor import access
from supervisor.core.access import FAILURES_FILE

# Samples would ask the supervisor for its status while no test expects it; and tests wait for what is recorded.
CONSTANTS = {"admin.sampling.SAMPLE_SECONDS": 3600.0, "admin.activity.WRITE_SECONDS": 0.02}


@pytest.fixture(scope="session")
def shared_supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSupervisor]:
    fake = FakeSupervisor(tmp_path_factory.mktemp("run"))
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(scope="session")
def web(shared_supervisor: FakeSupervisor) -> Iterator[WebTier]:
    tier = WebTier(shared_supervisor.path.parent, constants=CONSTANTS)
    tier.start()
    yield tier
    tier.close()


@pytest.fixture
def supervisor(shared_supervisor: FakeSupervisor) -> Iterator[FakeSupervisor]:
    shared_supervisor.reset()
    yield shared_supervisor
    shared_supervisor.wait_for_rest()


@pytest.fixture
def serve(supervisor: FakeSupervisor, tmp_path: Path) -> Iterator[Serve]:
    """serve(handler, model="m", tcp=False): a model server whose leases are granted; one more launch each call."""
    launches = itertools.count(1)
    with ExitStack() as stack:

        def start(handler: Handler, model: str | None = "m", tcp: bool = False) -> FakeUpstream:
            launch = next(launches)
            upstream = stack.enter_context(FakeUpstream(handler, None if tcp else tmp_path / f"{launch}.sock"))
            supervisor.grants.setdefault(model, []).append((launch, upstream.address))
            return upstream

        yield start


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Activity]:
    """A file of recorded requests."""
    recorder = Activity(tmp_path)
    yield recorder
    recorder.close()


@pytest.fixture(scope="session")
def shared_tier(tmp_path_factory: pytest.TempPathFactory, shared_supervisor: FakeSupervisor) -> Iterator[WebTier]:
    """Two workers, with the passwords ADMIN and VIEWER."""
    runtime = tmp_path_factory.mktemp("login")
    (runtime / "control.sock").symlink_to(shared_supervisor.path)
    proxies = {"LLAMA_ROUTER_TRUSTED_PROXIES": "127.0.0.1"}
    tier = WebTier(runtime, workers=2, cors_origins="localhost https://llm.example.org", environment=proxies)
    tier.state_dir.mkdir(mode=0o700)
    access.set_password(tier.state_dir, "admin", ADMIN, tell)
    access.set_password(tier.state_dir, "viewer", VIEWER, tell)
    tier.start()
    yield tier
    tier.close()


@pytest.fixture
def tier(shared_tier: WebTier, supervisor: FakeSupervisor) -> WebTier:
    """Without failures of an earlier test."""
    (shared_tier.runtime_dir / FAILURES_FILE).unlink(missing_ok=True)
    return shared_tier
