// Plays a live call: PCM16 as it comes from the API, a fifth of a second behind it.

const BEHIND_SECONDS = 0.2;
// Further behind than this, what waits is left out: live is better than whole.
const MOST_SECONDS = 1.5;

let playing = null;

/** Let `button` start and stop listening; `meter` shows what is heard, `said` what happens. */
export function listening(button, meter, said, callSid, query) {
  button.addEventListener("click", () => {
    if (playing && playing.button === button) {
      playing.stop("");
      return;
    }
    if (playing) playing.stop("");
    playing = new Listening(button, meter, said);
    playing.run(`/api/v1/calls/${encodeURIComponent(callSid)}/live.pcm${query}`);
  });
}

/** Stop listening where this button began it. */
export function silence(button) {
  if (playing && playing.button === button) playing.stop("");
}

class Listening {
  constructor(button, meter, said) {
    Object.assign(this, { button, meter, said, words: button.textContent });
    this.aborted = new AbortController();
    this.rest = new Uint8Array(0);
    this.at = 0;
  }

  async run(url) {
    this.show("Stop listening", true, "Connecting…");
    try {
      const answer = await fetch(url, { signal: this.aborted.signal, cache: "no-store" });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => ({}));
        this.stop(problem.detail || "The call cannot be heard.");
        return;
      }
      this.channels = Number(answer.headers.get("X-Channels")) || 1;
      this.rate = Number(answer.headers.get("X-Sample-Rate")) || 8000;
      this.context = new AudioContext({ sampleRate: this.rate });
      await this.context.resume();
      this.ear = this.context.createAnalyser();
      this.ear.fftSize = 2048;
      this.ear.connect(this.context.destination);
      this.said.textContent = "Listening.";
      this.follow();
      for (const reader = answer.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        this.play(value);
      }
      this.stop("The call has ended.");
    } catch {
      this.stop(this.aborted.signal.aborted ? this.said.textContent : "The connection was lost.");
    }
  }

  play(bytes) {
    const all = new Uint8Array(this.rest.length + bytes.length);
    all.set(this.rest);
    all.set(bytes, this.rest.length);
    const frame = 2 * this.channels;
    const count = Math.floor(all.length / frame);
    this.rest = all.slice(count * frame);
    const now = this.context.currentTime;
    if (!count || this.at - now > MOST_SECONDS) return;
    const buffer = this.context.createBuffer(this.channels, count, this.rate);
    const view = new DataView(all.buffer);
    for (let channel = 0; channel < this.channels; channel++) {
      const samples = buffer.getChannelData(channel);
      for (let i = 0; i < count; i++) {
        samples[i] = view.getInt16(i * frame + 2 * channel, true) / 32768;
      }
    }
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.ear);
    if (this.at < now) this.at = now + BEHIND_SECONDS;
    source.start(this.at);
    this.at += buffer.duration;
  }

  follow() {
    const heard = new Float32Array(this.ear.fftSize);
    this.timer = setInterval(() => {
      this.ear.getFloatTimeDomainData(heard);
      this.meter.value = heard.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
    }, 100);
  }

  stop(words) {
    if (playing === this) playing = null;
    this.show(this.words, false, words);
    clearInterval(this.timer);
    this.aborted.abort();
    if (this.context && this.context.state !== "closed") this.context.close();
  }

  show(words, pressed, said) {
    this.button.textContent = words;
    this.button.setAttribute("aria-pressed", String(pressed));
    this.meter.hidden = !pressed;
    this.said.textContent = said;
  }
}
