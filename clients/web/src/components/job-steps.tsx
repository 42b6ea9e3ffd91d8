/** The progress of a job and its steps. */

import type { Job, Step } from "../api";
import { ProgressBar } from "./progress-bar";
import { strings } from "../i18n/en";
import { EtaEstimator, formatTimeLeft } from "../format";

export function currentStep(job: Job): string {
  const running = job.steps.filter((step) => step.state === "running").map((step) => stepName(step));
  return running.join(", ") || strings.job.percent(job.percent);
}

const etaEstimators = new Map<string, EtaEstimator>();

/** Estimate a job's remaining time from the progress seen so far; null if unknown. */
export function remainingSeconds(job: Job): number | null {
  // Recognition dominates: the other steps are short, and their speed does not predict its.
  const analyzing = job.steps.find((step) => step.name === "analyzing" && step.state === "running");
  if (job.state !== "running" || !analyzing) {
    etaEstimators.delete(job.id);
    return null;
  }
  const estimate = etaEstimators.get(job.id) ?? new EtaEstimator();
  etaEstimators.set(job.id, estimate);
  return estimate.update(analyzing.percent / 100, performance.now() / 1000);
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
