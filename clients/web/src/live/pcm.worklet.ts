/** Audio worklet that converts samples to 16-bit PCM in chunks of 0.1 s. */

declare const registerProcessor: (name: string, processor: new () => object) => void;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}

const CHUNK_SAMPLES = 1600;

class PcmProcessor extends AudioWorkletProcessor {
  private chunk = new Int16Array(CHUNK_SAMPLES);
  private length = 0;

  process(inputs: Float32Array[][]): boolean {
    for (const sample of inputs[0]?.[0] ?? []) {
      this.chunk[this.length++] = Math.max(-1, Math.min(1, sample)) * 0x7fff;
      if (this.length === CHUNK_SAMPLES) {
        this.port.postMessage(this.chunk.buffer, [this.chunk.buffer]);
        this.chunk = new Int16Array(CHUNK_SAMPLES);
        this.length = 0;
      }
    }
    return true;
  }
}

registerProcessor("pcm", PcmProcessor);
export {};
