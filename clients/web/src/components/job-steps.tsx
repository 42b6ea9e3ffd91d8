/** A job's steps, as they happen. */

import type { Job, Step } from "../api";
import { ProgressBar } from "./progress-bar";
import { strings } from "../i18n/en";
import { EtaEstimator, formatTimeLeft } from "../format";

export function currentStep(job: Job): string {
  const running = job.steps.filter((step) => step.state === "running").map((step) => stepName(step));
  return running.join(", ") || strings.job.percent(job.percent);
}

const estimates = new Map<string, EtaEstimator>();

/** The seconds that a job will still take, from how it went while this page looked; null where that is not known. */
export function remainingSeconds(job: Job): number | null {
  // The steps before it say nothing about how fast reading goes, and the one after it takes no time.
  const reading = job.steps.find((step) => step.name === "reading" && step.state === "running");
  if (job.state !== "running" || !reading) {
    estimates.delete(job.id);
    return null;
  }
  const estimate = estimates.get(job.id) ?? new EtaEstimator();
  estimates.set(job.id, estimate);
  return estimate.update(reading.percent / 100, performance.now() / 1000);
}

export function JobSteps({ job }: { job: Job }) {
  const leftS = remainingSeconds(job);
  return (
    <section class="card steps" aria-labelledby="progress">
      <div class="steps-head">
        <h2 id="progress">{strings.job.states[job.state] ?? job.state}</h2>
        <strong>{strings.job.percent(job.percent)}</strong>
      </div>
      <ProgressBar percent={job.percent} label={strings.job.progress} />
      <p class="quiet" aria-live="polite">
        {leftS === null ? currentStep(job) : formatTimeLeft(leftS)}
      </p>
      <ol>
        {job.steps.map((step) => (
          <li key={step.name} class={step.state}>
            <span class="dot" aria-hidden="true" />
            <span>{stepName(step)}</span>
            <span class="quiet">{step.state === "running" && step.percent > 0 ? strings.job.percent(step.percent) : (strings.job.stepStates[step.state] ?? "")}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

function stepName(step: Step): string {
  return strings.job.steps[step.name] ?? step.name;
}
