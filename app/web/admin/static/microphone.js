// Hands on what a microphone hears, a quarter of a second at a time, as PCM16.

const SAMPLES = 4000;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(SAMPLES);
    this.at = 0;
  }

  process([[heard]]) {
    for (const one of heard || []) {
      this.samples[this.at++] = Math.max(-1, Math.min(1, one)) * 32767;
      if (this.at === SAMPLES) {
        this.port.postMessage(this.samples);
        this.at = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
