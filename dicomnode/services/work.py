"""The work role: leases a job, has an engine analyse it, records the results.

The lease is kept alive from here while the engine computes; what comes back after the lease is
lost is not recorded. Loads no model itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dicomnode.domain.alternatives import needed, reports
from dicomnode.domain.economy import economise
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.plans import DEFAULT_OBJECTS, FILES, Analysis, Plan, ResultInstance
from dicomnode.domain.records import Job, StoredResult
from dicomnode.domain.routing import may_receive
from dicomnode.engines.local import LocalEngine, Stopped
from dicomnode.errors import EngineError, LedgerError, Refusal
from dicomnode.gpus import Gpus
from dicomnode.ledger import completing, jobs
from dicomnode.memory import give_back
from dicomnode.services.common import Context, beat_until_stopped, role
from dicomnode.services.crew import Crew
from dicomnode.services.devices import devices, left_to_others
from dicomnode.services.lease import Heartbeat
from dicomnode.settings import Settings
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

NAME = "work"
IDLE_SECONDS = 0.5


class Worker:
    """Takes one job after the other for one device."""

    def __init__(
        self,
        context: Context,
        engine: LocalEngine,
        device: str,
        not_models: frozenset[str] = frozenset(),
    ) -> None:
        self._context = context
        self._engine = engine
        self.device = device
        self._not_models = not_models
        self._settings = context.settings
        self._lease = timedelta(seconds=context.settings.work.lease_seconds)
        self._worker = f"{context.settings.node.id}:{NAME}:{device}"
        self.doing = "starting"

    def take_back_own(self) -> None:
        """Take back what this worker held when it died: its place is free, so it is dead."""
        with self._context.ledger.transaction() as tx:
            count = jobs.take_back(
                tx,
                Retry("WORKER_DIED", "the worker died while it analysed the series"),
                max_failures=self._settings.work.max_attempts,
                wait=timedelta(0),
                worker=self._worker,
            )
        if count:
            log.warning("JOBS_TAKEN_BACK", extra={"fields": {"count": count}})

    def run_until_stopped(self) -> None:
        """Work until the role is to stop."""
        try:
            while not self._context.stop.is_set():
                try:
                    worked = self._run_one()
                except LedgerError:
                    log.exception("LEDGER_UNAVAILABLE")
                    worked = False
                if not worked:
                    self.doing = "waits for jobs"
                    self._context.stop.wait(IDLE_SECONDS)
        finally:
            self._engine.close()

    def _run_one(self) -> bool:
        self._settings = self._context.settings  # the same until this job is done
        with self._context.ledger.transaction() as tx:
            job = jobs.claim(tx, self._worker, self._lease, self._not_models)
            predecessors = () if job is None else completing.predecessors(tx, job)
        if job is None:
            return False
        started = time.monotonic()
        profiles = self._profiles(job)
        economy = economise(
            job.shortages,
            model_id=job.model_id,
            threads=self._settings.work.threads,
            processors=len(os.sched_getaffinity(0)),
            smaller_models=self._settings.work.smaller_models,
        )
        plan = Plan(
            job_id=str(job.id),
            model_id=economy.model_id,
            analysed_at=job.analysed_at,
            station_name=self._settings.node.ae_title,
            generation=job.generation,
            identity_revision=job.identity_revision,
            predecessors=predecessors,
            model_folders=tuple(str(path) for path in self._settings.work.model_folders),
            weights_folder=str(self._settings.weights_folder),
            device=self.device,
            threads=economy.threads,
            thrifty=economy.thrifty,
            economy=economy.finding() if economy.sentence else None,
            options=job.options,
            content=self._settings.content,
            quality=self._settings.quality,
            monoenergetic=job.monoenergetic,
            objects=needed({kind for profile in profiles for kind in profile}),
            reports=reports(profiles),
        )
        outcome = self._analyze(job, plan)
        fields = {
            "job": job.id,
            "model": job.model_id,
            "series_uid": job.series_uid,
            "attempt": job.attempt,
            "seconds": round(time.monotonic() - started, 2),
            "outcome": outcome,
        }
        log.info("JOB_ENDED", extra={"fields": fields})
        give_back()
        return True

    def _analyze(self, job: Job, plan: Plan) -> str:
        self.doing = f"analyses job {job.id}"
        with Heartbeat(self._context, job, self._lease) as beat:
            return self._analyze_and_record(job, plan, beat)

    def _analyze_and_record(self, job: Job, plan: Plan, beat: Heartbeat) -> str:
        paths = [self._context.spool.path(path) for path in job.paths]
        try:
            with self._context.spool.workspace() as folder:
                plan = replace(plan, results_folder=str(folder))
                analysis = self._engine.analyze(paths, plan, beat.report, beat.keep_going)
                return self._record(job, analysis)
        except Refusal as refusal:
            return self._fail(job, Refuse(refusal.code, refusal.detail))
        except EngineError as error:
            return self._fail(job, Retry(error.code, error.detail))
        except Stopped:
            if beat.lost:
                return "LEASE_LOST"
            return self._fail(job, Retry("STOPPED", "the worker was told to stop"), counts=False)
        except OSError as error:
            log.exception("STORAGE_FAILED")
            return self._fail(job, Retry("STORAGE_FAILED", error.strerror or "see the log"))

    def _record(self, job: Job, analysis: Analysis) -> str:
        came_back = (analysis.job_id, analysis.study_uid, analysis.series_uid)
        if came_back != (str(job.id), job.study_uid, job.series_uid):
            return self._fail(job, Refuse("MIXED_UP", "the analysis is of another series or job"))
        spool = self._context.spool
        label_map = spool.result_path(job.id, "labels.npz")
        spool.write(label_map, analysis.label_map)
        stored = []
        for position, item in enumerate(analysis.results):
            name = item.file_name if item.kind in FILES else f"{item.sop_instance_uid}.dcm"
            path = spool.result_path(job.id, name)
            digest, size = _store(spool, path, item)
            if item.picture:
                spool.write(spool.result_path(job.id, f"{item.kind}.png"), item.picture)
            stored.append(
                StoredResult(
                    kind=item.kind,
                    position=position,
                    sop_class_uid=item.sop_class_uid,
                    sop_instance_uid=item.sop_instance_uid,
                    series_uid=item.series_uid,
                    transfer_syntax_uid=item.transfer_syntax_uid,
                    path=path,
                    digest=digest,
                    size=size,
                    summary=item.summary,
                    refers_to=item.refers_to,
                )
            )
        allowed, refused = self._split_destinations(job, analysis.demonstration)
        with self._context.ledger.transaction() as tx:
            ours = completing.finish(
                tx,
                job,
                stored,
                deliver_to=allowed,
                not_allowed=refused,
                label_map_path=label_map,
                label_map_digest=analysis.label_map_digest,
                findings=analysis.findings,
                coded=analysis.coded,
                held=analysis.held,
                timings=analysis.timings,
            )
        return "DONE" if ours else "LEASE_LOST"

    def _profiles(self, job: Job) -> list[tuple[str, ...]]:
        """Return what the destinations of the job take, the default where it has none."""
        known = self._settings.destinations
        return [known[name].takes for name in job.destinations if name in known] or [
            DEFAULT_OBJECTS
        ]

    def _split_destinations(
        self, job: Job, demonstration: bool
    ) -> tuple[dict[str, tuple[str, ...]], list[str]]:
        """Return the destinations with what each takes, and those that may get nothing."""
        allowed: dict[str, tuple[str, ...]] = {}
        refused: list[str] = []
        for name in job.destinations:
            if name not in self._settings.destinations:
                refused.append(name)
                continue
            terms = self._settings.destinations[name]
            may = may_receive(
                host=self._settings.host_of(name),
                allow_demo=terms.allow_demo,
                demonstration=demonstration,
            )
            if may:
                allowed[name] = terms.takes
            else:
                refused.append(name)
        return allowed, refused

    def _fail(self, job: Job, outcome: Retry | Refuse, *, counts: bool = True) -> str:
        backoff = self._settings.send.retry
        wait = backoff.after(job.attempt, 0.5) if counts else timedelta(0)
        with self._context.ledger.transaction() as tx:
            ours = jobs.fail(
                tx,
                job,
                outcome,
                max_failures=self._settings.work.max_attempts,
                wait=wait,
                counts=counts,
            )
        return outcome.code if ours else "LEASE_LOST"


def _store(spool: Spool, path: str, item: ResultInstance) -> tuple[str, int]:
    """Put a result into the spool; return the sha256 of its bytes, and how many they are."""
    if item.file is None:
        spool.write(path, item.data)
        return hashlib.sha256(item.data).hexdigest(), len(item.data)
    with item.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    spool.adopt(item.file, path)
    return digest, size


def run(settings: Settings, config: Path | None = None) -> None:
    """Work until the role is to stop, with a worker and an analysis process a device."""
    with role(settings, NAME, config) as context:
        context.gpus = Gpus().read
        chosen = devices(settings.work.devices)
        not_models = left_to_others(settings, chosen)
        workers = [
            Worker(
                context,
                LocalEngine(
                    analyses_per_process=settings.work.jobs_per_process,
                    timeout_seconds=settings.work.timeout_seconds,
                ),
                device,
                not_models.get(device, frozenset()),
            )
            for device in chosen
        ]
        removed = context.spool.clear_tmp()
        if removed:
            log.info("TMP_CLEARED", extra={"fields": {"files": removed}})
        for worker in workers:
            worker.take_back_own()
        loops = {f"worker of {one.device}": one.run_until_stopped for one in workers}
        crew = Crew(context, lambda: loops)
        crew.keep()
        try:
            beat_until_stopped(context, NAME, lambda: "; ".join(one.doing for one in workers))
        finally:
            crew.end()
